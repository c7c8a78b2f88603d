//! The tour.

use crate::support::Place;

#[test]
fn the_tour_runs_twice_and_leaves_its_store() {
    let place = Place::new();
    place.ok(&["put", "mine", "k", "v"]);
    for run in 0..2 {
        let shown = place.ok(&["demo"]);
        for part in [
            "     turn-2\tIt left Lyon this morning.\n",
            "$ cubbyhole get demo-acme:agent-7 typing\n     cubbyhole: there is no entry",
            "exit code 1\n",
            "exit code 3\n",
            "     swept 1 expired entry\n",
            "     erased 1 entry in 1 namespace under demo-globex, from 20",
        ] {
            assert!(shown.contains(part), "{part:?} is missing in:\n{shown}");
        }
        assert_eq!(shown.contains("Begun afresh: 4 entries"), run == 1, "{shown}");
        assert!(!shown.contains('\u{1b}'), "colours go to a terminal only");
        assert_eq!(place.ok(&["get", "demo-acme:jobs", "nightly-report"]), "worker-1");
        assert_eq!(place.ok(&["tenants"]), "demo-acme\nmine\n");
    }
    assert_eq!(place.files(), ["cubbyhole.redb"]);
}
