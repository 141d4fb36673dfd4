//! Room ids: three grammars for one field, and the one form they are kept in (OPEN-24, spec devices.md §3).

/// A room id in canonical form: upper case; `phase-building-unit-room` where the building is known (phase 1 unless said),
/// the bare room of a unit door otherwise. Leading zeros stay as keyed. `None`: not a room id.
///
/// ```text
/// four  = 1ALNUM "-" 1*3ALNUM "-" 1*4ALNUM "-" 1*5ALNUM
/// three = 1*3ALNUM "-" 1*4ALNUM "-" 1*5ALNUM
/// one   = 1*5ALNUM
/// ```
pub fn canonical(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split('-').collect();
    let longest: &[usize] = match parts.len() {
        4 => &[1, 3, 4, 5],
        3 => &[3, 4, 5],
        1 => &[5],
        _ => return None,
    };
    let fits = |(part, longest): (&&str, &usize)| {
        (1..=*longest).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    if !parts.iter().zip(longest).all(fits) {
        return None;
    }
    let upper = text.to_ascii_uppercase();
    Some(if parts.len() == 3 { format!("1-{upper}") } else { upper })
}

/// The room part alone.
pub fn last_part(canonical: &str) -> &str {
    canonical.rsplit('-').next().unwrap_or(canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_grammars_one_form() {
        for (text, form) in [
            ("1202", Some("1202")),
            ("0102", Some("0102")),
            ("1-3-1202", Some("1-1-3-1202")),
            ("10-3a-1709", Some("1-10-3A-1709")),
            ("1-9-3-1202", Some("1-9-3-1202")),
            ("1-5-767-801", Some("1-5-767-801")),
            ("", None),
            ("1-2", None),
            ("12-3-1202-", None),
            ("1-2-3-4-5", None),
            ("123456", None),
            ("12-9-3-1202", None),
            ("1 2", None),
            ("房", None),
        ] {
            assert_eq!(canonical(text).as_deref(), form, "{text}");
        }
        assert_eq!(last_part("1-9-3-1202"), "1202");
    }
}
