//! From numbers to the page, with the words of OpenMetrics left to its library.
//!
//! Every metric of a page is on it from the start, with every value of its labels: one that appears with the first
//! trouble has no rate that could tell of it. A gauge that is not known is on it by name, without a number.

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::metrics::{MetricType, TypedMetric};
use std::fmt;
use std::marker::PhantomData;

/// The labels of one row: name and value.
pub type Labels<const N: usize> = [(&'static str, &'static str); N];

/// A label whose values are all known beforehand: [`label!`](crate::label) declares one.
pub trait Label: Copy + 'static {
    /// Its name.
    const NAME: &'static str;
    /// All of its values, each at its index.
    const ALL: &'static [Self];
    /// This value, as the page has it.
    fn text(self) -> &'static str;
    /// Its place among all.
    fn index(self) -> usize;
}

/// Declares a [`Label`]: an enum, its name on the page, and the text of each value there.
#[macro_export]
macro_rules! label {
    ($(#[$about:meta])* $vis:vis enum $label:ident = $name:literal {
        $($(#[$what:meta])* $value:ident = $text:literal,)+
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $label {
            $($(#[$what])* $value,)+
        }

        impl $crate::metrics::Label for $label {
            const NAME: &'static str = $name;
            const ALL: &'static [$label] = &[$($label::$value),+];

            fn text(self) -> &'static str {
                match self {
                    $($label::$value => $text,)+
                }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

/// One metric for each value of a label.
#[derive(Debug)]
pub struct Per<L, M> {
    metrics: Box<[M]>,
    label: PhantomData<L>,
}

impl<L: Label, M> Per<L, M> {
    /// All of them, each as `metric` makes it.
    pub fn new(metric: impl Fn() -> M) -> Per<L, M> {
        Per { metrics: L::ALL.iter().map(|_| metric()).collect(), label: PhantomData }
    }

    /// The one of this value.
    pub fn of(&self, value: L) -> &M {
        &self.metrics[value.index()]
    }

    fn iter(&self) -> impl Iterator<Item = (L, &M)> {
        L::ALL.iter().copied().zip(&self.metrics)
    }
}

impl<L: Label, M: Default> Default for Per<L, M> {
    fn default() -> Per<L, M> {
        Per::new(M::default)
    }
}

/// A page on its way to whoever asked for it. Names are given without the suffix that their type has on the page:
/// `_total` for a counter, `_info` for an info.
pub struct Page<'a>(DescriptorEncoder<'a>);

impl<'a> Page<'a> {
    /// A page that begins here.
    pub fn new(encoder: DescriptorEncoder<'a>) -> Page<'a> {
        Page(encoder)
    }

    /// What the program is.
    pub fn info<const N: usize>(&mut self, name: &str, help: &str, labels: Labels<N>) -> fmt::Result {
        self.one(name, help, &Info::new(labels.to_vec()))
    }

    /// A counter.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.one(name, help, &ConstCounter::new(value))
    }

    /// A counter for each row of labels.
    pub fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels<N>, u64)>,
    ) -> fmt::Result {
        self.rows(name, help, rows.into_iter().map(|(labels, value)| (labels, ConstCounter::new(value))))
    }

    /// A gauge, or only its name where nothing is known.
    pub fn gauge(&mut self, name: &str, help: &str, value: Option<f64>) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        value.map_or(Ok(()), |value| encoder.encode_gauge(&value))
    }

    /// A gauge for each row of labels.
    pub fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels<N>, f64)>,
    ) -> fmt::Result {
        self.rows(name, help, rows.into_iter().map(|(labels, value)| (labels, ConstGauge::new(value))))
    }

    /// A histogram.
    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        self.one(name, help, histogram)
    }

    /// One metric for each value of a label.
    pub fn per<L: Label, M: EncodeMetric + TypedMetric>(
        &mut self,
        name: &str,
        help: &str,
        metrics: &Per<L, M>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, M::TYPE)?;
        metrics
            .iter()
            .try_for_each(|(value, metric)| metric.encode(encoder.encode_family(&[(L::NAME, value.text())])?))
    }

    /// One metric for each pair of values of two labels.
    pub fn per_pair<K: Label, L: Label, M: EncodeMetric + TypedMetric>(
        &mut self,
        name: &str,
        help: &str,
        metrics: &Per<K, Per<L, M>>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, M::TYPE)?;
        for (first, metrics) in metrics.iter() {
            for (second, metric) in metrics.iter() {
                let labels = [(K::NAME, first.text()), (L::NAME, second.text())];
                metric.encode(encoder.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn one(&mut self, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
        metric.encode(self.0.encode_descriptor(name, help, None, metric.metric_type())?)
    }

    fn rows<const N: usize, M: EncodeMetric + TypedMetric>(
        &mut self,
        name: &str,
        help: &str,
        mut rows: impl Iterator<Item = (Labels<N>, M)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, M::TYPE)?;
        rows.try_for_each(|(labels, metric)| metric.encode(encoder.encode_family(&labels)?))
    }
}
