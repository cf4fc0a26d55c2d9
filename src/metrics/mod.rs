//! What a server tells Prometheus of itself, on a port of its own.
//!
//! The numbers are kept where they arise; a server's one [`Collector`] puts them on a [`Page`] when somebody asks.
//! So counting costs an addition in memory, and nothing is looked up by name on any path. A label is an enum
//! ([`Label`]), or another of a few words that the program has: no id can be one, and none grows with the traffic.
//! `METRICS.md` lists what is on the pages, and a test holds the two to each other.
//!
//! - `page`: from numbers to the page.
//! - `port`: from the page to whoever asks, over HTTP.

mod page;
mod port;

pub use page::{Label, Labels, Page, Per};
pub use port::{PATH, Port};
pub use prometheus_client::collector::Collector;
pub use prometheus_client::encoding::DescriptorEncoder;
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;
