//! Periods and their windows: which second, minute, ..., year of the UTC calendar a moment lies in.
//!
//! Pure arithmetic on Unix seconds; leap seconds do not exist there. Names of headers live here, too, because
//! they are a table by period.

/// A kind of window.
#[derive(Debug)]
pub(super) struct Period {
    /// Place among [`PERIODS`].
    pub(super) index: usize,
    /// Kong's name of the setting.
    pub(super) name: &'static str,
    /// Length Kong reckons with: a month has 30 days, a year 365 (kong/plugins/rate-limiting/expiration.lua).
    nominal_s: u64,
    pub(super) limit_header: &'static str,
    pub(super) remaining_header: &'static str,
}

/// Shortest first; each window lies within one window of every longer period.
pub(super) static PERIODS: [Period; 6] = [
    period(0, "second", 1, "X-RateLimit-Limit-Second", "X-RateLimit-Remaining-Second"),
    period(1, "minute", 60, "X-RateLimit-Limit-Minute", "X-RateLimit-Remaining-Minute"),
    period(2, "hour", 3_600, "X-RateLimit-Limit-Hour", "X-RateLimit-Remaining-Hour"),
    period(3, "day", DAY_S, "X-RateLimit-Limit-Day", "X-RateLimit-Remaining-Day"),
    period(MONTH, "month", 30 * DAY_S, "X-RateLimit-Limit-Month", "X-RateLimit-Remaining-Month"),
    period(YEAR, "year", 365 * DAY_S, "X-RateLimit-Limit-Year", "X-RateLimit-Remaining-Year"),
];

/// A counter outlives its window by at least this: clocks of nodes differ, and requests wait on their way to Redis. A
/// counter that was gone by then would begin anew, and admit the limit twice.
const SLACK_S: u64 = 5;
const DAY_S: u64 = 86_400;
const MONTH: usize = 4;
const YEAR: usize = 5;

const fn period(
    index: usize,
    name: &'static str,
    nominal_s: u64,
    limit: &'static str,
    remaining: &'static str,
) -> Period {
    Period { index, name, nominal_s, limit_header: limit, remaining_header: remaining }
}

/// One window of a period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Window {
    /// Counts up with time; at least 1.
    pub(super) number: u32,
    /// Unix seconds of its first moment.
    pub(super) start_s: u64,
    /// Unix seconds of the first moment after it.
    pub(super) end_s: u64,
}

impl Period {
    /// The window that holds this moment.
    pub(super) fn window(&self, now_s: u64) -> Window {
        let days = now_s / DAY_S;
        let (number, start_s, end_s) = match self.index {
            MONTH => {
                let (year, month) = civil_month(days);
                let months = u64::from(year) * 12 + u64::from(month);
                (months, days_before_month(months) * DAY_S, days_before_month(months + 1) * DAY_S)
            }
            YEAR => {
                let (year, _) = civil_month(days);
                let months = u64::from(year) * 12;
                (u64::from(year), days_before_month(months) * DAY_S, days_before_month(months + 12) * DAY_S)
            }
            _ => {
                let number = now_s / self.nominal_s;
                (number, number * self.nominal_s, (number + 1) * self.nominal_s)
            }
        };
        Window { number: u32::try_from(number).unwrap_or(u32::MAX).max(1), start_s, end_s }
    }

    /// Seconds until the window ends by Kong's reckoning, at least 1. Beyond the thirtieth day of a month, where
    /// Kong would say 1 all day, the true rest.
    pub(super) fn reset_s(&self, window: &Window, now_s: u64) -> u64 {
        let elapsed = now_s.saturating_sub(window.start_s);
        match self.nominal_s.saturating_sub(elapsed) {
            0 => window.end_s.saturating_sub(now_s).max(1),
            rest => rest,
        }
    }

    /// Seconds a counter in Redis lives: as long as Kong's, or as the window where that is longer, and [`SLACK_S`] more.
    pub(super) fn ttl_s(&self, window: &Window, now_s: u64) -> u64 {
        self.nominal_s.max(window.end_s.saturating_sub(now_s)) + SLACK_S
    }
}

/// Year and month (0 = January) of a day counted from 1970-01-01. Years are reckoned from March within cycles of
/// 400 years, so that the leap day is the last of a year (the method of Howard Hinnant's calendar notes).
fn civil_month(days: u64) -> (u32, u32) {
    let shifted = days + 719_468;
    let (cycle, day) = (shifted / 146_097, shifted % 146_097);
    let year_of_cycle = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let year = cycle * 400 + year_of_cycle + u64::from(month_from_march >= 10);
    (u32::try_from(year).unwrap_or(u32::MAX / 16), ((month_from_march + 2) % 12) as u32)
}

/// Days from 1970-01-01 to the first of the month with this number (12 x year + month, 0 = January).
fn days_before_month(months: u64) -> u64 {
    let (year, month) = (months / 12, months % 12);
    let (march_year, month_from_march) =
        if month >= 2 { (year, month - 2) } else { (year.saturating_sub(1), month + 10) };
    let (cycle, year_of_cycle) = (march_year / 400, march_year % 400);
    let day_of_year = (153 * month_from_march + 2) / 5;
    let day = 365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100 + day_of_year;
    (cycle * 146_097 + day).saturating_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(period: usize, now_s: u64, start_s: u64, end_s: u64, reset_s: u64) {
        let window = PERIODS[period].window(now_s);
        assert_eq!((window.start_s, window.end_s), (start_s, end_s), "{} at {now_s}", PERIODS[period].name);
        assert_eq!(PERIODS[period].reset_s(&window, now_s), reset_s, "{} at {now_s}", PERIODS[period].name);
    }

    #[test]
    fn windows_follow_the_calendar() {
        const FEB_2024: u64 = 1_706_745_600;
        const MAR_2024: u64 = 1_709_251_200;
        const APR_2024: u64 = 1_711_929_600;
        const Y2024: u64 = 1_704_067_200;
        const Y2025: u64 = 1_735_689_600;
        let now = MAR_2024 - 1; // 2024-02-29 23:59:59
        check(0, now, now, now + 1, 1);
        check(1, now, now - 59, now + 1, 1);
        check(2, now, now - 3_599, now + 1, 1);
        check(3, now, MAR_2024 - DAY_S, MAR_2024, 1);
        check(4, now, FEB_2024, MAR_2024, DAY_S + 1); // Kong gives every month 30 days
        check(4, MAR_2024, MAR_2024, APR_2024, 30 * DAY_S);
        check(4, APR_2024 - 10, MAR_2024, APR_2024, 10); // the 31st
        check(5, now, Y2024, Y2025, 365 * DAY_S - (now - Y2024));
        check(5, Y2025 - 10, Y2024, Y2025, 10); // day 366
    }

    #[test]
    fn a_counter_in_redis_lives_as_long_as_kongs_or_as_its_window() {
        const MAR_2024: u64 = 1_709_251_200;
        let ttl = |period: usize, now_s: u64| {
            let period = &PERIODS[period];
            period.ttl_s(&period.window(now_s), now_s) - SLACK_S
        };
        assert_eq!((ttl(0, MAR_2024), ttl(1, MAR_2024 + 59), ttl(3, MAR_2024)), (1, 60, DAY_S));
        assert_eq!(ttl(MONTH, MAR_2024), 31 * DAY_S);
        assert_eq!(ttl(MONTH, MAR_2024 + 10 * DAY_S), 30 * DAY_S);
        assert_eq!(ttl(YEAR, MAR_2024), 365 * DAY_S);
    }

    #[test]
    fn every_day_for_two_centuries_lies_in_its_month_and_numbers_count_up() {
        let (mut months, mut years) = (0, 0);
        for day in 0..73_049 {
            let month = PERIODS[MONTH].window(day * DAY_S);
            let year = PERIODS[YEAR].window(day * DAY_S);
            assert!(month.start_s <= day * DAY_S && day * DAY_S < month.end_s);
            assert!(year.start_s <= month.start_s && month.end_s <= year.end_s);
            assert!((28..=31).contains(&((month.end_s - month.start_s) / DAY_S)));
            assert!(month.number >= months && year.number >= years);
            (months, years) = (month.number, year.number);
        }
        assert_eq!((months, years), (2169 * 12 + 11, 2169));
    }
}
