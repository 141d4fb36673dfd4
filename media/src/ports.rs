use crate::command::*;
use std::time::Instant;
pub struct PortStock;
impl PortStock {
    pub fn choose_worker(&mut self) -> Option<WorkerId> { None }
    pub fn take(&mut self, _n: Instant, _w: WorkerId) -> Option<(PairId, u16)> { None }
    pub fn release(&mut self, _n: Instant, _p: PairId) {}
    pub fn noise(&mut self, _n: Instant, _p: PairId) {}
    pub fn reused_early(&self) -> u64 { 0 }
}
