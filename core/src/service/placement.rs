//! Where a server puts the endpoints of a contract: under which prefix, and in which queue group. The contract says the rest.

use super::start_error::StartError;
use crate::wire::spec::MethodSpec;

/// What a deployment decides.
#[derive(Debug, Clone, Default)]
pub(super) struct Placement {
    prefix: Option<String>,
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
        self.prefix = (!prefix.is_empty()).then(|| prefix.to_owned());
    }

    pub(super) fn queue_group(&mut self, name: Option<&str>) {
        self.queue_group = Some(match name {
            Some(name) => QueueGroup::Named(name.to_owned()),
            None => QueueGroup::None,
        });
    }

    /// Whether subscriptions can be made like that.
    pub(super) fn check(&self) -> Result<(), StartError> {
        if let Some(prefix) = &self.prefix {
            let fits = prefix.split('.').all(is_name) && prefix != "_INBOX" && prefix.len() <= 256;
            if !fits {
                let prefix = prefix.clone();
                return Err(StartError::Prefix { prefix });
            }
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
        let subject = match &self.prefix {
            Some(prefix) => format!("{prefix}.{}", method.subject),
            None => method.subject.to_owned(),
        };
        Place {
            subject,
            queue_group,
        }
    }
}

/// The alphabet of names in subjects, as in the attributes.
fn is_name(token: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !token.is_empty() && token.chars().all(fits)
}
