//! What can happen to a site by itself: what rings, what its disk has done, who asks what of it.

use std::rc::Rc;

use raft_core::Alarm;

use super::action::Act;
use super::bounds::Cost;
use super::model::{Cluster, Item, Model};
use super::site::Site;

impl Model {
    /// What can happen to a site by itself.
    pub(super) fn menu(&mut self, number: u32) -> Rc<[Item]> {
        if let Some(menu) = &self.menus[number as usize] {
            return menu.clone();
        }
        let acts = self.acts(&self.sites.values[number as usize]);
        let mut menu: Vec<Item> = Vec::new();
        for (act, cost) in acts {
            let outcome = self.compute(number, &act);
            if !self.is_idle(number, outcome) && !self.crashes_alike(&menu, cost, outcome) {
                menu.push(Item { act, cost, outcome });
            }
        }
        let menu: Rc<[Item]> = menu.into();
        self.menus[number as usize] = Some(menu.clone());
        menu
    }

    /// Crashes at different places often leave the same.
    fn crashes_alike(&self, menu: &[Item], cost: Option<Cost>, outcome: u32) -> bool {
        let left = |outcome: u32| self.outcomes[outcome as usize].as_ref().ok().map(|it| it.site);
        let alike = |item: &Item| item.cost == cost && left(item.outcome) == left(outcome);
        cost == Some(Cost::Crash) && menu.iter().any(alike)
    }

    pub(super) fn acts(&self, site: &Site) -> Vec<(Act, Option<Cost>)> {
        let Cluster { nodes, target, bounds, .. } = &self.cluster;
        let mut acts = vec![(Act::Ring(Alarm::Heartbeat), Some(Cost::Heartbeat))];
        acts.extend(site.unwritten().map(|place| (Act::Written(place), None)));
        acts.extend((0..site.crash_points()).map(|at| (Act::Crash(at), Some(Cost::Crash))));
        acts.push((Act::Read, Some(Cost::Read)));
        acts.push((Act::Cut, Some(Cost::Cut)));
        if site.leads() {
            acts.push((Act::Ring(Alarm::Quorum), Some(Cost::QuorumLoss)));
            acts.push((Act::Ring(Alarm::Disk), Some(Cost::DiskHang)));
            // Without a transfer, a heartbeat would be what is due at that time.
            if site.node.status().transferring_to.is_some() {
                acts.push((Act::Ring(Alarm::Transfer), None));
            }
            let commands = (0..bounds.of(Cost::Proposal)).map(|n| b'a' + n);
            acts.extend(commands.map(|command| (Act::Propose(command), Some(Cost::Proposal))));
            let others = nodes.iter().map(|config| config.id).filter(|&id| id != site.id());
            acts.extend(others.map(|id| (Act::Transfer(id), Some(Cost::Transfer))));
            acts.extend(target.iter().map(|to| (Act::Change(to.clone()), Some(Cost::Change))));
        } else {
            acts.push((Act::Ring(Alarm::Election), Some(Cost::Election)));
        }
        acts.retain(|(_, cost)| cost.is_none_or(|cost| bounds.of(cost) > 0));
        acts
    }
}
