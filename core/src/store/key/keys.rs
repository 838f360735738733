//! The keys of one call, made in two passes: what the request says before the handler runs, what the answer says after it.

use super::rule::{KeyError, check_whole};
use super::template::{Capture, KeySource, KeyTemplate, Segment};
use super::token::KeyToken;
use std::collections::VecDeque;

/// The keys of one call while they are being made: first from the request, then, where a template says so, from the answer.
#[derive(Debug)]
pub struct Keys {
    building: Vec<Building>,
    /// Which of `building` is next to be filled, in either pass.
    current: usize,
}

#[derive(Debug)]
struct Building {
    template: KeyTemplate,
    key: String,
    next: usize,
    /// Where captures of the answer belong, as byte positions in `key`, and which they are.
    gaps: VecDeque<(usize, Capture)>,
    /// The call does not use this key: what stands in it does not matter any more.
    skipped: bool,
}

impl Building {
    /// Copies literals, and remembers gaps, up to the next capture of the request.
    fn advance(&mut self) -> Option<Capture> {
        while let Some(segment) = self.template.segments.get(self.next) {
            self.next += 1;
            match segment {
                Segment::Literal(text) => self.key.push_str(text),
                Segment::Capture(capture) if capture.source == KeySource::Response => {
                    self.gaps.push_back((self.key.len(), *capture));
                }
                Segment::Capture(capture) => return Some(*capture),
            }
        }
        None
    }
}

impl Keys {
    /// Begins the keys of these templates.
    pub fn new(templates: impl IntoIterator<Item = KeyTemplate>) -> Self {
        let building = templates
            .into_iter()
            .map(|template| Building {
                template,
                key: String::with_capacity(template.source.len() + 32),
                next: 0,
                gaps: VecDeque::new(),
                skipped: false,
            })
            .collect();
        Self {
            building,
            current: 0,
        }
    }

    /// Fills the next capture that comes from the request: template by template, capture by capture.
    ///
    /// # Errors
    /// Names the capture and the rule.
    pub fn request<T: KeyToken + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
        while let Some(building) = self.building.get_mut(self.current) {
            let Some(capture) = building.advance() else {
                self.current += 1;
                continue;
            };
            return capture
                .write(&value.key_token(), &mut building.key)
                .and_then(|()| check_whole(&building.key))
                .map_err(|rule| capture.error(&building.template, rule));
        }
        debug_assert!(false, "more request captures than the templates have");
        Ok(())
    }

    /// Ends the pass over the request.
    pub fn request_done(&mut self) {
        for building in &mut self.building {
            let left = building.advance();
            debug_assert!(left.is_none(), "a request capture was not filled");
        }
        self.current = 0;
    }

    /// The key of this number, when nothing of it comes from the answer.
    #[must_use]
    pub fn made(&self, index: usize) -> Option<&str> {
        let building = self.building.get(index)?;
        building.gaps.is_empty().then_some(&*building.key)
    }

    /// Leaves the key of this number out.
    pub fn skip(&mut self, index: usize) {
        if let Some(building) = self.building.get_mut(index) {
            building.skipped = true;
        }
    }

    /// Fills the next capture that comes from the answer.
    ///
    /// # Errors
    /// Names the capture and the rule.
    pub fn response<T: KeyToken + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
        while let Some(building) = self.building.get_mut(self.current) {
            let Some((position, capture)) = building.gaps.pop_front() else {
                self.current += 1;
                continue;
            };
            if building.skipped {
                return Ok(());
            }
            let mut token = String::new();
            return capture
                .write(&value.key_token(), &mut token)
                .and_then(|()| {
                    building.key.insert_str(position, &token);
                    for (later, _) in &mut building.gaps {
                        *later += token.len();
                    }
                    check_whole(&building.key)
                })
                .map_err(|rule| capture.error(&building.template, rule));
        }
        debug_assert!(false, "more response captures than the templates have");
        Ok(())
    }

    /// The finished keys, one for each template; `None` for one that was left out.
    #[must_use]
    pub fn finish(self) -> Vec<Option<String>> {
        self.building
            .into_iter()
            .map(|building| (!building.skipped).then_some(building.key))
            .collect()
    }
}
