//! Baseline and product in turn, and what their slices have in common: a median and a spread.
//!
//! Whatever else the machine does meanwhile it does to both, and a ratio within one slice is of one moment. Which of
//! the two goes first changes from slice to slice, so that none always finds the caches that the other left.

/// Both sides of one slice.
#[derive(Debug)]
pub(crate) struct Pair<T> {
    pub(crate) baseline: T,
    pub(crate) product: T,
}

/// Runs so many slices of each, after one of each that warms up and does not count.
pub(crate) async fn in_turn<T>(
    slices: usize,
    mut baseline: impl AsyncFnMut() -> anyhow::Result<T>,
    mut product: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<Vec<Pair<T>>> {
    let mut pairs = Vec::with_capacity(slices);
    for slice in 0..=slices {
        let pair = if slice.is_multiple_of(2) {
            let baseline = baseline().await?;
            Pair { baseline, product: product().await? }
        } else {
            let product = product().await?;
            Pair { baseline: baseline().await?, product }
        };
        if slice > 0 {
            pairs.push(pair);
        }
    }
    Ok(pairs)
}

/// What is known of some slices: never of none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// Of one value for each slice. No value is no spread: all three are NaN, which no goal is met by.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Spread { low: at(0), median: at(values.len() / 2), high: at(values.len().saturating_sub(1)) }
    }

    /// Of the ratio product to baseline in each slice.
    pub(crate) fn of_ratios<T>(pairs: &[Pair<T>], value: impl Fn(&T) -> f64) -> Spread {
        Spread::of(pairs.iter().map(|pair| value(&pair.product) / value(&pair.baseline)))
    }

    /// Medians of both sides, baseline first.
    pub(crate) fn medians<T>(pairs: &[Pair<T>], value: impl Fn(&T) -> f64) -> (f64, f64) {
        let median = |side: fn(&Pair<T>) -> &T| Spread::of(pairs.iter().map(|pair| value(side(pair)))).median;
        (median(|pair| &pair.baseline), median(|pair| &pair.product))
    }
}
