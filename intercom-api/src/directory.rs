use crate::model::*;
pub enum Applied {
    PasswordChanged(Number),
    AccountRemoved(Number),
}
#[derive(Default)]
pub struct Directory;
impl Directory {
    pub fn apply(&mut self, _c: Vec<DirectoryChange>) -> Vec<Applied> {
        vec![]
    }
    pub fn account(&self, _n: &str) -> Option<&Account> {
        None
    }
    pub fn group(&self, _n: &str) -> Option<&Group> {
        None
    }
    pub fn room(&self, _d: &Number, _n: &str) -> Option<&Number> {
        None
    }
}
