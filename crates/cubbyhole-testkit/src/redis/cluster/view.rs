//! What one node says about all nodes of its cluster: the reply to `CLUSTER NODES`.

/// A line of the reply.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) id: String,
    flags: Vec<String>,
    /// The id of the master whose replica it is.
    pub(super) master: Option<String>,
    pub(super) epoch: u64,
    is_connected: bool,
    /// The first and the last slot of each range.
    slots: Vec<(u16, u16)>,
    /// Slots that move to another node. Only the line of the replying node has them.
    migrating: Vec<(u16, String)>,
}

impl Line {
    pub(super) fn is_own(&self) -> bool {
        self.has("myself")
    }

    pub(super) fn is_master(&self) -> bool {
        self.has("master")
    }

    /// Returns whether the replying node reaches this one.
    pub(super) fn is_reached(&self) -> bool {
        let is_bad = ["handshake", "fail", "fail?", "noaddr"].iter().any(|flag| self.has(flag));
        self.is_connected && !is_bad
    }

    pub(super) fn has_slots(&self) -> bool {
        !self.slots.is_empty()
    }

    pub(super) fn owns(&self, slot: u16) -> bool {
        self.is_master() && self.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot))
    }

    /// Returns the node that `slot` moves to.
    pub(super) fn target_of(&self, slot: u16) -> Option<&str> {
        let found = self.migrating.iter().find(|(migrating, _)| *migrating == slot);
        found.map(|(_, target)| target.as_str())
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|found| found == flag)
    }
}

pub(super) fn parse(text: &str) -> Result<Vec<Line>, String> {
    let lines = text.lines().map(|line| {
        parse_line(line).ok_or_else(|| format!("CLUSTER NODES has the invalid line `{line}`"))
    });
    lines.collect()
}

/// `ID ADDRESS FLAG,FLAG… MASTER PING PONG EPOCH LINK SLOTS…`
fn parse_line(line: &str) -> Option<Line> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [id, _address, flags, master, _ping, _pong, epoch, link, slots @ ..] = fields.as_slice()
    else {
        return None;
    };
    let mut line = Line {
        id: (*id).to_owned(),
        flags: flags.split(',').map(str::to_owned).collect(),
        master: (*master != "-").then(|| (*master).to_owned()),
        epoch: epoch.parse().ok()?,
        is_connected: *link == "connected",
        slots: Vec::new(),
        migrating: Vec::new(),
    };
    for slot in slots {
        if let Some(moving) = slot.strip_prefix('[').and_then(|slot| slot.strip_suffix(']')) {
            // `SLOT->-TARGET`, or `SLOT-<-SOURCE` for a slot that moves to this node.
            if let Some((slot, target)) = moving.split_once("->-") {
                line.migrating.push((slot.parse().ok()?, target.to_owned()));
            }
        } else {
            let (first, last) = slot.split_once('-').unwrap_or((slot, slot));
            line.slots.push((first.parse().ok()?, last.parse().ok()?));
        }
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_parsed() {
        let text = "\
            a 127.0.0.1:1@2 myself,master - 0 1 3 connected 0-5460 5500 [7->-c] [8-<-d]\n\
            b 127.0.0.1:3@4,host slave,fail? a 0 1 3 connected\n\
            c :0@0 master,noaddr - 0 1 0 disconnected\n";
        let lines = parse(text).unwrap();
        let [a, b, c] = lines.as_slice() else { panic!("{lines:?}") };
        assert!(a.is_own() && a.is_master() && a.is_reached() && a.has_slots());
        assert_eq!((a.id.as_str(), a.epoch, a.master.as_deref()), ("a", 3, None));
        assert!(a.owns(0) && a.owns(5460) && a.owns(5500) && !a.owns(5461));
        assert_eq!((a.target_of(7), a.target_of(8)), (Some("c"), None));
        assert!(!b.is_own() && !b.is_master() && !b.is_reached() && !b.has_slots());
        assert_eq!(b.master.as_deref(), Some("a"));
        assert!(c.is_master() && !c.is_reached());
        assert!(parse("a b c").is_err());
    }
}
