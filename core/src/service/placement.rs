//! Where a server puts the endpoints of a contract: under which prefix, and in which queue group. The contract says the rest.

use super::start_error::StartError;
use crate::wire::spec::MethodSpec;
use crate::wire::subject::{Prefix, PrefixError, is_name};

/// What a deployment decides.
#[derive(Debug, Clone, Default)]
pub(super) struct Placement {
    prefix: Prefix,
    /// Told at the start.
    wrong_prefix: Option<PrefixError>,
    queue_group: Option<QueueGroup>,
}

#[derive(Debug, Clone)]
enum QueueGroup {
    Named(String),
    None,
}

/// One endpoint where it is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) subject: String,
    pub(crate) queue_group: Option<String>,
}

impl Placement {
    pub(super) fn prefix(&mut self, prefix: &str) {
        match Prefix::new(prefix) {
            Ok(prefix) => (self.prefix, self.wrong_prefix) = (prefix, None),
            Err(error) => self.wrong_prefix = Some(error),
        }
    }

    pub(super) fn queue_group(&mut self, name: Option<&str>) {
        self.queue_group = Some(match name {
            Some(name) => QueueGroup::Named(name.to_owned()),
            None => QueueGroup::None,
        });
    }

    /// Whether subscriptions can be made like that.
    pub(super) fn check(&self) -> Result<(), StartError> {
        if let Some(error) = &self.wrong_prefix {
            return Err(error.clone().into());
        }
        match &self.queue_group {
            Some(QueueGroup::Named(name)) if !name.split('.').all(is_name) => {
                let name = name.clone();
                Err(StartError::QueueGroup { name })
            }
            _ => Ok(()),
        }
    }

    /// A method's own queue group, or that it has none, is part of the contract and stays.
    pub(super) fn of(&self, method: &MethodSpec) -> Place {
        let contract = method.queue_group.map(str::to_owned);
        let queue_group = match &self.queue_group {
            Some(decided) if !method.own_queue_group => match decided {
                QueueGroup::Named(name) => Some(name.clone()),
                QueueGroup::None => None,
            },
            _ => contract,
        };
        Place {
            subject: self.prefix.of(method).into_string(),
            queue_group,
        }
    }
}
