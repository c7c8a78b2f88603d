//! The demo.

use crate::support::Sandbox;

#[test]
fn demo_can_be_repeated_and_keeps_its_store() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["put", "mine", "k", "v"]);
    for run in 0..2 {
        let shown = sandbox.ok(&["demo"]);
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
        assert_eq!(shown.contains("Removed 4 entries of an earlier tour"), run == 1, "{shown}");
        assert!(!shown.contains('\u{1b}'), "output without a terminal has colours");
        assert_eq!(sandbox.ok(&["get", "demo-acme:jobs", "nightly-report"]), "worker-1");
        assert_eq!(sandbox.ok(&["tenants"]), "demo-acme\nmine\n");
    }
    assert_eq!(sandbox.files(), ["cubbyhole.redb"]);
}
