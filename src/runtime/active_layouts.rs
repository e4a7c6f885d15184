//! The layouts that this process dispatches from: one, or two while the older one drains.

use std::collections::{BTreeMap, BTreeSet};

use tokio::task::JoinSet;
use tracing::info;

use super::layout_drivers::{DispatchContext, DriverEnded, LayoutDrivers};
use lanekeeper_core::change::ActiveLayout;
use lanekeeper_core::layout::{LayoutNumber, PartitionNumber};

/// The layouts whose drivers have not all ended.
#[derive(Default)]
pub struct ActiveLayouts(BTreeMap<LayoutNumber, LayoutDrivers>);

impl ActiveLayouts {
    /// Does what the layout document says now: starts the drivers of a layout, tells them what has changed, stops those of
    /// other layouts. To be called when the document changes and when a driver has ended.
    pub fn follow(
        &mut self,
        context: &DispatchContext,
        active_layouts: &[ActiveLayout],
        drivers: &mut JoinSet<DriverEnded>,
    ) {
        let is_active =
            |number: &LayoutNumber| active_layouts.iter().any(|active| active.layout.number == *number);
        for (_, layout_drivers) in self.0.iter().filter(|(number, _)| !is_active(number)) {
            layout_drivers.stop();
        }
        self.0.retain(|number, layout_drivers| is_active(number) || !layout_drivers.has_ended());
        // While a driver of a layout that is not active any more runs, attempts of it may be in flight in this process.
        let is_clear = self.0.keys().all(is_active);
        for of in active_layouts {
            let number = of.layout.number;
            let before: BTreeSet<PartitionNumber> =
                self.0.range(..number).flat_map(|(_, layout_drivers)| layout_drivers.left()).collect();
            if is_clear && !self.0.contains_key(&number) {
                let previous = of.previous.clone().with(before.iter().copied());
                self.0.insert(number, LayoutDrivers::begin(context, of, previous, drivers));
            }
            let Some(layout_drivers) = self.0.get_mut(&number) else { continue };
            layout_drivers.observe(context, of, active_layouts.len() > 1);
            for partition in layout_drivers.previous_drained(&of.previous, &before) {
                info!(
                    layout = number.0,
                    previous = %partition,
                    "a partition of the previous layout is drained: its records are dispatched from this layout now"
                );
            }
        }
    }

    /// A driver has ended.
    pub fn ended(&mut self, context: &DispatchContext, ended: &DriverEnded) {
        let layout_drivers =
            self.0.get_mut(&ended.layout).expect("a layout stays until its drivers have ended");
        layout_drivers.ended(context, ended);
    }

    /// Asks all drivers to stop.
    pub fn stop(&self) {
        self.0.values().for_each(LayoutDrivers::stop);
    }

    /// Publishes that this process ends, or goes on under another id.
    pub fn end(&self) {
        self.0.values().for_each(|layout_drivers| layout_drivers.membership.end());
    }

    /// Tells the other replicas that keys have moved.
    pub async fn notify_moved(&self) {
        for layout_drivers in self.0.values() {
            layout_drivers.membership.notify_moved().await;
        }
    }
}
