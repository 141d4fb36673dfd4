//! [`Hours`]: when something may be opened, by the week, to the minute, in local time (`unlock.utc_offset_minutes`).

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::borrow::Cow;

const DAY: u16 = 24 * 60;
/// Spans of one door or account.
const MAX: usize = 32;

/// A list of spans; none: always.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Span>", into = "Vec<Span>")]
pub struct Hours(Vec<Span>);

/// Minutes `from` (included) to `to` (not) of some days. One that ends before it begins, or as it begins, goes on into the next day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// 1 is Monday, 7 is Sunday.
    #[schemars(length(min = 1), inner(range(min = 1, max = 7)))]
    days: Vec<u8>,
    from: Clock,
    to: Clock,
}

/// `07:30` in minutes; `24:00` is the end of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clock(u16);

impl JsonSchema for Clock {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Clock".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"})
    }
}

impl JsonSchema for Hours {
    fn schema_name() -> Cow<'static, str> {
        "Hours".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let span = generator.subschema_for::<Span>();
        json_schema!({"type": "array", "maxItems": MAX, "items": span})
    }
}

impl<'de> Deserialize<'de> for Clock {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Clock, D::Error> {
        let text = String::deserialize(from)?;
        let read = || {
            let (hour, minute) = text.split_once(':').filter(|(h, m)| h.len() == 2 && m.len() == 2)?;
            let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
            (minute < 60 && hour * 60 + minute <= DAY).then_some(Clock(hour * 60 + minute))
        };
        read().ok_or_else(|| D::Error::custom(format!("`{text}` is not a time of day like 07:30")))
    }
}

impl Serialize for Clock {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{:02}:{:02}", self.0 / 60, self.0 % 60))
    }
}

impl From<Hours> for Vec<Span> {
    fn from(hours: Hours) -> Vec<Span> {
        hours.0
    }
}

impl TryFrom<Vec<Span>> for Hours {
    type Error = String;

    fn try_from(spans: Vec<Span>) -> Result<Hours, String> {
        if spans.len() > MAX {
            return Err(format!("at most {MAX} spans"));
        }
        match spans.iter().all(|span| !span.days.is_empty() && span.days.iter().all(|day| (1..=7).contains(day))) {
            true => Ok(Hours(spans)),
            false => Err("days are 1 (Monday) to 7 (Sunday)".into()),
        }
    }
}

impl Hours {
    pub fn is_always(&self) -> bool {
        self.0.is_empty()
    }

    pub fn hold(&self, at: LocalMinute) -> bool {
        self.is_always() || self.0.iter().any(|span| span.holds(at))
    }
}

impl Span {
    fn holds(&self, LocalMinute { day, minute }: LocalMinute) -> bool {
        let on = |day: u8| self.days.contains(&day);
        let (Clock(from), Clock(to)) = (self.from, self.to);
        if from < to {
            return on(day) && (from..to).contains(&minute);
        }
        (on(day) && minute >= from) || (on(if day == 1 { 7 } else { day - 1 }) && minute < to)
    }
}

/// A minute of the week where the doors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalMinute {
    day: u8,
    minute: u16,
}

impl LocalMinute {
    /// `unix_ms`: milliseconds since 1970, which began on a Thursday.
    pub fn at(unix_ms: i64, utc_offset_minutes: i32) -> LocalMinute {
        let minutes = unix_ms.div_euclid(60_000) + i64::from(utc_offset_minutes);
        let (days, minute) = (minutes.div_euclid(i64::from(DAY)), minutes.rem_euclid(i64::from(DAY)));
        LocalMinute { day: ((days + 3).rem_euclid(7) + 1) as u8, minute: minute as u16 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23 00:00 UTC, a Monday.
    const MONDAY: i64 = 1_795_392_000_000;

    fn at(day: i64, hour: i64, minute: i64) -> LocalMinute {
        LocalMinute::at(MONDAY + (((day - 1) * 24 + hour) * 60 + minute) * 60_000 + 59_999, 0)
    }

    #[test]
    fn a_span_holds_to_the_minute_and_over_midnight() {
        let hours: Hours = serde_json::from_str(
            r#"[{"days":[1,2,3,4,5],"from":"08:00","to":"18:00"},{"days":[7],"from":"22:30","to":"02:00"}]"#,
        )
        .unwrap();
        for (day, hour, minute, open) in [
            (1, 7, 59, false),
            (1, 8, 0, true),
            (5, 17, 59, true),
            (5, 18, 0, false),
            (6, 12, 0, false),
            (7, 22, 29, false),
            (7, 22, 30, true),
            (8, 1, 59, true),
            (8, 2, 0, false),
            (2, 1, 0, false),
        ] {
            assert_eq!(hours.hold(at(day, hour, minute)), open, "day {day}, {hour}:{minute}");
        }
        assert!(Hours::default().hold(at(3, 3, 3)), "no spans: always");
    }

    #[test]
    fn the_day_is_that_of_the_place() {
        let sunday = LocalMinute { day: 7, minute: DAY - 60 };
        assert_eq!(LocalMinute::at(MONDAY, -60), sunday);
        assert_eq!(LocalMinute::at(MONDAY, 330), LocalMinute { day: 1, minute: 330 });
        assert_eq!(LocalMinute::at(0, 0), LocalMinute { day: 4, minute: 0 });
        assert_eq!(LocalMinute::at(-1, 0), LocalMinute { day: 3, minute: DAY - 1 });
    }

    #[test]
    fn nonsense_is_refused_and_what_is_read_is_written_the_same() {
        for bad in [
            r#"[{"days":[8],"from":"08:00","to":"18:00"}]"#,
            r#"[{"days":[],"from":"08:00","to":"18:00"}]"#,
            r#"[{"days":[1],"from":"8:00","to":"18:00"}]"#,
            r#"[{"days":[1],"from":"08:60","to":"18:00"}]"#,
            r#"[{"days":[1],"from":"08:00","to":"24:01"}]"#,
            r#"[{"days":[1],"from":"08:00","to":"18:00","more":1}]"#,
        ] {
            assert!(serde_json::from_str::<Hours>(bad).is_err(), "{bad}");
        }
        let text = r#"[{"days":[1,7],"from":"00:00","to":"24:00"}]"#;
        assert_eq!(serde_json::to_string(&serde_json::from_str::<Hours>(text).unwrap()).unwrap(), text);
    }
}
