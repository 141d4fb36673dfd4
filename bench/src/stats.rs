//! Samples → percentiles → rows.

/// One line of the table.
pub struct Row {
    pub name: String,
    pub unit: &'static str,
    pub samples: usize,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
    /// What the project wants the p99 to be.
    pub reach: Option<f64>,
}

impl Row {
    /// `None` without samples: a row of nothing would look like a good one.
    pub fn of(name: impl Into<String>, unit: &'static str, mut samples: Vec<f64>, reach: Option<f64>) -> anyhow::Result<Row> {
        let name = name.into();
        samples.sort_by(f64::total_cmp);
        let at = |share: f64| {
            samples.get(((samples.len() as f64 * share).ceil() as usize).clamp(1, samples.len().max(1)) - 1).copied()
        };
        let (Some(p50), Some(p99), Some(max)) = (at(0.5), at(0.99), samples.last().copied()) else {
            anyhow::bail!("no samples for {name}");
        };
        Ok(Row { name, unit, samples: samples.len(), p50, p99, max, reach })
    }
}

pub fn print(rows: &[Row], json: bool) {
    if json {
        for row in rows {
            let line = serde_json::json!({
                "row": row.name, "unit": row.unit, "samples": row.samples,
                "p50": row.p50, "p99": row.p99, "max": row.max, "reach_p99": row.reach,
            });
            println!("{line}");
        }
        return;
    }
    println!("{:<44} {:>8} {:>9} {:>9} {:>9} {:>10}", "", "samples", "p50", "p99", "max", "p99 to be");
    for row in rows {
        let reach = row.reach.map_or(String::new(), |reach| format!("≤ {reach}"));
        println!(
            "{:<44} {:>8} {:>9.1} {:>9.1} {:>9.1} {:>10}",
            format!("{} [{}]", row.name, row.unit),
            row.samples,
            row.p50,
            row.p99,
            row.max,
            reach
        );
    }
}
