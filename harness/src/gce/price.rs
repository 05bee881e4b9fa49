//! What a machine type costs an hour: looked up in Google's public price list (Cloud Billing API: `services.skus.list`), and remembered.
//!
//! The list is long, so it is read only as far as needed. What is not found has no price, and that fails nothing.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{client::Client, settings::Settings};

/// The service "Compute Engine" in the price list.
const SERVICE: &str = "6F81-5844-456A";
const PAGE_SIZE: &str = "2000";
/// Most pages that are read.
const MOST_PAGES: usize = 60;
/// Prices that were looked up are believed for so long.
const FRESH: Duration = Duration::from_secs(30 * 24 * 3600);
const FILE: &str = "gce-prices.json";

/// What is to be priced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Priced {
    /// `N2`.
    pub(crate) series: String,
    /// `us-central1`.
    pub(crate) region: String,
    pub(crate) spot: bool,
}

/// What a virtual CPU and a GiB of memory cost, in US dollars an hour.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rate {
    pub(crate) cpu: f64,
    pub(crate) gib: f64,
}

impl Rate {
    /// That of a machine.
    pub(crate) fn of(self, cpus: u32, memory_mib: u64) -> f64 {
        self.cpu * f64::from(cpus) + self.gib * memory_mib as f64 / 1024.0
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SkuPage {
    skus: Vec<Sku>,
    next_page_token: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Sku {
    description: String,
    category: Category,
    service_regions: Vec<String>,
    pricing_info: Vec<PricingInfo>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Category {
    usage_type: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PricingInfo {
    pricing_expression: PricingExpression,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PricingExpression {
    tiered_rates: Vec<TieredRate>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TieredRate {
    unit_price: Money,
}

/// int64 are JSON strings.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Money {
    units: String,
    nanos: i64,
}

/// The prices that were looked up, in the store.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Known(BTreeMap<String, KnownRate>);

#[derive(Debug, Serialize, Deserialize)]
struct KnownRate {
    /// Seconds since 1970.
    at: i64,
    rate: Rate,
}

impl Priced {
    /// A machine type of this series in a zone.
    pub(crate) fn new(series: &str, zone: &str, spot: bool) -> Self {
        let region = zone.rsplit_once('-').map_or(zone, |(region, _)| region).to_owned();
        Self { series: series.to_owned(), region, spot }
    }

    fn key(&self) -> String {
        format!("{} {}{}", self.series, self.region, if self.spot { " spot" } else { "" })
    }

    /// Its rate: remembered in the store, else looked up.
    pub(crate) async fn rate(&self, client: &Client, settings: &Settings, store: &Path) -> Option<Rate> {
        let (file, now) = (store.join(FILE), jiff::Timestamp::now().as_second());
        let mut known = read(&file);
        let fresh = |known: &&KnownRate| (0..FRESH.as_secs() as i64).contains(&(now - known.at));
        if let Some(known) = known.0.get(&self.key()).filter(fresh) {
            return Some(known.rate);
        }
        let rate = self.look_up(client, settings).await?;
        known.0.insert(self.key(), KnownRate { at: now, rate });
        write(&file, &known);
        Some(rate)
    }

    async fn look_up(&self, client: &Client, settings: &Settings) -> Option<Rate> {
        let (mut cpu, mut gib, mut token) = (None, None, String::new());
        for _ in 0..MOST_PAGES {
            let mut query = vec![("pageSize", PAGE_SIZE.to_owned()), ("currencyCode", "USD".to_owned())];
            if !token.is_empty() {
                query.push(("pageToken", token));
            }
            let url = format!("{}v1/services/{SERVICE}/skus", settings.endpoints.billing);
            let page: SkuPage = client.once("read the price list", url, query).await.ok()?;
            for sku in page.skus.iter().filter(|sku| self.applies(sku)) {
                match self.part(&sku.description) {
                    Some(Part::Cpu) => cpu = cpu.or(sku.usd()),
                    Some(Part::Memory) => gib = gib.or(sku.usd()),
                    None => {}
                }
            }
            if let (Some(cpu), Some(gib)) = (cpu, gib) {
                return Some(Rate { cpu, gib });
            }
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        None
    }

    fn applies(&self, sku: &Sku) -> bool {
        let usage = if self.spot { "Preemptible" } else { "OnDemand" };
        sku.category.usage_type == usage && sku.service_regions.contains(&self.region)
    }

    /// `N2 Instance Core running in Americas`, `Spot Preemptible N2 Instance Ram running in ...`, `N1 Predefined Instance Core ...`.
    fn part(&self, description: &str) -> Option<Part> {
        let rest = description.strip_prefix("Spot Preemptible ").unwrap_or(description);
        let rest = rest.strip_prefix(&self.series)?.strip_prefix(' ')?;
        let rest = rest.strip_prefix("Predefined ").unwrap_or(rest);
        if rest.starts_with("Instance Core running in ") {
            Some(Part::Cpu)
        } else if rest.starts_with("Instance Ram running in ") {
            Some(Part::Memory)
        } else {
            None
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Cpu,
    Memory,
}

impl Sku {
    /// The last tier's price: earlier ones are free amounts.
    fn usd(&self) -> Option<f64> {
        let price = &self.pricing_info.last()?.pricing_expression.tiered_rates.last()?.unit_price;
        let units: f64 = if price.units.is_empty() { 0.0 } else { price.units.parse().ok()? };
        let usd = units + price.nanos as f64 / 1e9;
        (usd.is_finite() && usd > 0.0).then_some(usd)
    }
}

fn read(file: &PathBuf) -> Known {
    let text = std::fs::read(file).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Not being able to remember costs the next run a look-up.
fn write(file: &Path, known: &Known) {
    let write = || -> std::io::Result<()> {
        let mut new = tempfile::NamedTempFile::new_in(file.parent().unwrap_or(Path::new(".")))?;
        serde_json::to_writer_pretty(&mut new, known)?;
        new.persist(file)?;
        Ok(())
    };
    let _ = write();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sku(description: &str, usage: &str, nanos: i64) -> Sku {
        let json = serde_json::json!({
            "description": description,
            "category": { "resourceFamily": "Compute", "usageType": usage },
            "serviceRegions": ["us-central1", "us-west1"],
            "pricingInfo": [{ "pricingExpression": { "tieredRates": [{ "unitPrice": { "units": "0", "nanos": nanos } }] } }],
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn of_all_that_is_sold_two_items_are_a_machine() {
        let on_demand = Priced::new("N2", "us-central1-a", false);
        let spot = Priced::new("N2", "us-central1-a", true);
        for (description, usage, of_on_demand, of_spot) in [
            ("N2 Instance Core running in Americas", "OnDemand", Some(Part::Cpu), None),
            ("N2 Instance Ram running in Americas", "OnDemand", Some(Part::Memory), None),
            ("Spot Preemptible N2 Instance Core running in Americas", "Preemptible", None, Some(Part::Cpu)),
            ("N2 Custom Instance Core running in Americas", "OnDemand", None, None),
            ("N2D AMD Instance Core running in Americas", "OnDemand", None, None),
            ("Commitment v1: N2 Cpu in Americas for 1 Year", "Commit1Yr", None, None),
        ] {
            let sku = sku(description, usage, 31_611_000);
            let part = |priced: &Priced| {
                Some(&sku).filter(|sku| priced.applies(sku)).and_then(|sku| priced.part(&sku.description))
            };
            assert_eq!((part(&on_demand), part(&spot)), (of_on_demand, of_spot), "{description}");
        }
        assert!(!Priced::new("N2", "europe-west4-b", false).applies(&sku("x", "OnDemand", 1)));
        assert_eq!(
            Priced::new("N1", "us-west1-a", false).part("N1 Predefined Instance Ram running in Americas"),
            Some(Part::Memory)
        );
    }

    #[test]
    fn a_price_is_a_number_above_zero_and_a_machine_is_its_parts() {
        assert_eq!(sku("x", "OnDemand", 31_611_000).usd(), Some(0.031_611));
        assert_eq!(sku("x", "OnDemand", 0).usd(), None);
        assert_eq!(sku("x", "OnDemand", -5).usd(), None);
        assert_eq!(Sku::default().usd(), None);
        let rate = Rate { cpu: 0.031_611, gib: 0.004_237 };
        assert!((rate.of(4, 16 << 10) - 0.194_236).abs() < 1e-9);
    }

    #[test]
    fn what_was_looked_up_is_remembered_and_half_a_file_is_none() {
        let store = tempfile::tempdir().unwrap();
        let file = store.path().join(FILE);
        let rate = Rate { cpu: 1.0, gib: 2.0 };
        write(&file, &Known([("N2 us-central1".to_owned(), KnownRate { at: 7, rate })].into()));
        assert_eq!(read(&file).0["N2 us-central1"].rate, rate);
        std::fs::write(&file, "{").unwrap();
        assert!(read(&file).0.is_empty());
    }
}
