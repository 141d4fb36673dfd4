//! What was measured → rows → one table, or a JSON object a line.

/// One line of the table.
pub enum Row {
    /// Many samples of one time.
    Times {
        name: String,
        unit: &'static str,
        samples: usize,
        p50: f64,
        p99: f64,
        max: f64,
        /// What the project wants the p99 to be at most.
        reach: Option<f64>,
    },
    /// One figure: a share, a ratio, a size.
    Figure { name: String, unit: &'static str, value: f64, reach: Option<Reach> },
}

/// What the project wants a figure to be.
#[derive(Clone, Copy)]
pub enum Reach {
    AtMost(f64),
    AtLeast(f64),
}

impl Row {
    /// An error without samples: a row of nothing would look like a good one.
    pub fn of(name: impl Into<String>, unit: &'static str, mut samples: Vec<f64>, reach: Option<f64>) -> anyhow::Result<Row> {
        let name = name.into();
        samples.sort_by(f64::total_cmp);
        let at = |share: f64| {
            samples.get(((samples.len() as f64 * share).ceil() as usize).clamp(1, samples.len().max(1)) - 1).copied()
        };
        let (Some(p50), Some(p99), Some(max)) = (at(0.5), at(0.99), samples.last().copied()) else {
            anyhow::bail!("no samples for {name}");
        };
        Ok(Row::Times { name, unit, samples: samples.len(), p50, p99, max, reach })
    }

    pub fn figure(name: impl Into<String>, unit: &'static str, value: f64) -> Row {
        Row::Figure { name: name.into(), unit, value, reach: None }
    }

    /// The same with what it should be.
    pub fn reach(self, wanted: Reach) -> Row {
        match self {
            Row::Figure { name, unit, value, .. } => Row::Figure { name, unit, value, reach: Some(wanted) },
            Row::Times { .. } => self,
        }
    }
}

pub fn print(rows: &[Row], json: bool) {
    if json {
        for row in rows {
            println!("{}", line(row));
        }
        return;
    }
    println!("{:<58} {:>8} {:>9} {:>9} {:>9} {:>10}", "", "samples", "p50", "p99", "max", "to be");
    for row in rows {
        match row {
            Row::Times { name, unit, samples, p50, p99, max, reach } => {
                let reach = reach.map_or(String::new(), |reach| format!("≤ {reach}"));
                let name = format!("{name} [{unit}]");
                println!("{name:<58} {samples:>8} {p50:>9.1} {p99:>9.1} {max:>9.1} {reach:>10}");
            }
            Row::Figure { name, unit, value, reach } => {
                let (name, value) = (format!("{name} [{unit}]"), digits(*value));
                println!("{name:<58} {:>8} {value:>9} {:>9} {:>9} {:>10}", "", "", "", words(*reach));
            }
        }
    }
}

fn line(row: &Row) -> serde_json::Value {
    match row {
        Row::Times { name, unit, samples, p50, p99, max, reach } => serde_json::json!({
            "row": name, "unit": unit, "samples": samples, "p50": p50, "p99": p99, "max": max, "reach_p99": reach,
        }),
        Row::Figure { name, unit, value, reach } => {
            let (at_most, at_least) = match reach {
                Some(Reach::AtMost(most)) => (Some(most), None),
                Some(Reach::AtLeast(least)) => (None, Some(least)),
                None => (None, None),
            };
            serde_json::json!({ "row": name, "unit": unit, "value": value, "at_most": at_most, "at_least": at_least })
        }
    }
}

fn words(reach: Option<Reach>) -> String {
    match reach {
        Some(Reach::AtMost(most)) => format!("≤ {most}"),
        Some(Reach::AtLeast(least)) => format!("≥ {least}"),
        None => String::new(),
    }
}

/// Small figures need their digits, large ones do not.
fn digits(value: f64) -> String {
    if value.abs() < 10.0 { format!("{value:.4}") } else { format!("{value:.1}") }
}
