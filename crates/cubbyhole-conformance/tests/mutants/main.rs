//! Broken stores, each of which must be caught by a named case: proof that the suite can fail.

mod layer;
mod stores;

use cubbyhole_conformance::model::{Life, Operation, Place, replay};
use cubbyhole_conformance::{Suite, Verdict};

use layer::{Lab, Mutant};

/// The case passes on the sound store, and fails on the mutant.
fn catches<M: Mutant>(case: &str) -> std::io::Result<()> {
    let sound = Suite::new(Lab::<stores::Sound>::default)?.run_case(case);
    assert_eq!(sound, Some(Verdict::Passed), "{case} on the sound store");
    let broken = Suite::new(Lab::<M>::default)?.run_case(case);
    let caught = matches!(broken, Some(Verdict::Failed(_)));
    assert!(caught, "{case} does not catch the mutant: {broken:?}");
    Ok(())
}

macro_rules! mutants {
    ($($mutant:ident: $($case:literal),+;)*) => {
        $(#[test]
        #[expect(non_snake_case, reason = "a test is named after its mutant")]
        fn $mutant() -> std::io::Result<()> {
            $(catches::<stores::$mutant>($case)?;)+
            Ok(())
        })*

        /// Whoever adds a mutant names the case that catches it.
        #[test]
        fn no_mutant_is_without_a_case() {
            let named = [$(stringify!($mutant)),*];
            assert_eq!(named.len(), stores::COUNT, "a mutant without a named case");
        }
    };
}

mutants! {
    TimeStopsWhenSetBack:
        "ttl::a_ttl_counts_after_the_clock_is_set_back", "ttl::a_ttl_counts_while_the_store_is_idle";
    TellsTheMachinesTime: "expiry::the_current_time_is_that_of_writes";
    ListIgnoresPrefix: "listing::a_prefix_selects_keys", "model::random_operations";
    ListTakesPatterns: "names::a_hostile_prefix_is_literal";
    ScanTakesPatterns: "names::a_hostile_prefix_of_a_scan_is_literal";
    NamespaceByTextPrefix:
        "isolation::a_never_sees_ab", "isolation::a_tenant_never_sees_a_longer_name";
    JoinsWithoutEscapes:
        "isolation::a_colon_in_a_key_is_no_segment", "isolation::escapes_collide_with_nothing";
    ExpiresLate: "ttl::expiry_is_exact";
    ExpiresEarly: "ttl::expiry_is_exact", "model::random_operations";
    ListsExpired: "ttl::an_expired_entry_is_not_listed";
    ZeroTtlMeansForever: "ttl::a_ttl_of_zero_is_refused";
    PutKeepsTheTtl: "ttl::a_plain_put_removes_the_ttl";
    RepeatsAcrossPages: "scan::pages_of_every_size";
    DropsAnItem: "scan::pages_of_every_size", "model::random_operations";
    PagesByOffset: "scan::what_stays_appears_once";
    PutEntryIgnoresCondition: "conditions::if_version", "concurrency::one_put_if_absent_wins";
    DeleteIgnoresCondition: "conditions::delete_if_version";
    ConditionIsRacy: "concurrency::every_increment_counts";
    DefaultListNamespaces: "namespaces::every_namespace_is_listed";
    NamespacesByOneRange: "namespaces::a_prefix_matches_whole_segments";
    ListsEmptiedNamespaces: "namespaces::an_emptied_namespace_is_not_listed";
    TakeLeavesTheEntry: "take::take_removes";
    TakeInTwoSteps: "take::one_taker_gets_it";
    BatchIsNotAtomic: "batches::all_or_nothing", "model::random_operations";
    BatchJudgesAsItGoes: "batches::a_key_named_twice_is_refused";
    OverwritingIsNew: "entries::overwriting_keeps_created_at";
    TouchIsAWrite: "versions::touch_changes_no_version", "model::random_operations";
    TouchRevives: "expiry::an_expired_entry_is_absent_for_writes";
    SlidingShortens: "sliding::a_read_never_shortens";
    EraseLeaks: "erase::other_tenants_are_untouched";
    EraseCountsExpired: "erase::live_entries_are_counted";
    EvictsLiveEntries: "sweep::live_entries_survive";
    SweepsWhatWasDue: "sweep_races::a_refreshed_entry_is_never_swept";
    UsageCountsExpired: "usage::expired_entries_are_counted_apart";
    TenantsByBareNamespace: "tenants::tenants_with_scopes_alone_appear";
    ValuesAreText: "values::awkward_values_come_back_equal";
    ErrorsShowValues: "errors::no_error_shows_a_value";
    KeysWithoutLimit: "limits::the_longest_key";
    GetNeverYields:
        "scheduling::core_calls_yield", "scheduling::core_calls_of_an_ended_context_yield",
        "scheduling::core_calls_of_a_closed_store_yield";
    RefusesWithoutYielding: "scheduling::entry_calls_yield";
    UsageNeverYields:
        "scheduling::entry_calls_of_an_ended_context_yield",
        "scheduling::entry_calls_of_a_closed_store_yield";
    GetPanicsWithoutRuntime: "no_runtime::core_calls_work_or_are_refused";
    TakeFailsWithoutRuntime: "no_runtime::entry_calls_work_or_are_refused";
    AnswersEmptyCallsWhenClosed: "closed::entry_calls_are_refused";
    ListsNothingWhenClosed: "closed::core_calls_are_refused";
    CutsTtls: "ttl_limit::a_put_is_refused";
    JudgesConditionsBeforeTtls:
        "ttl_limit::it_comes_before_a_condition",
        "ttl_limit::it_comes_before_the_conditions_of_a_batch";
    LooksForTheEntryBeforeTheTtl:
        "ttl_limit::a_touch_is_refused", "ttl_limit::a_sliding_read_is_refused";
}

/// The sound store, through the same layer as the mutants, passes everything.
#[test]
fn the_sound_store_passes_every_case() -> std::io::Result<()> {
    let suite = Suite::new(Lab::<stores::Sound>::default)?;
    for (name, verdict) in suite.run_all() {
        assert!(!matches!(verdict, Verdict::Failed(_)), "{name}: {verdict:?}");
    }
    Ok(())
}

/// A sequence that fails is shrunk to a few operations, and told with its seed.
fn shrinks<M: Mutant>() -> std::io::Result<()> {
    let verdict = Suite::new(Lab::<M>::default)?.run_case("model::random_operations");
    let Some(Verdict::Failed(message)) = verdict else {
        return Err(std::io::Error::other(format!("the model does not catch it: {verdict:?}")));
    };
    assert!(message.contains("CUBBYHOLE_MODEL_SEED="), "{message}");
    let operations = message.lines().filter(|line| line.starts_with("    ")).count();
    assert!((1..=6).contains(&operations), "{message}");
    Ok(())
}

#[test]
fn a_failing_sequence_is_short() -> std::io::Result<()> {
    shrinks::<stores::ExpiresEarly>()?;
    shrinks::<stores::TouchRevives>()?;
    shrinks::<stores::BatchIsNotAtomic>()
}

/// A sequence can be kept and played again.
#[tokio::test]
async fn a_sequence_can_be_replayed() {
    let at = Place { namespace: 1, key: 2 };
    let sequence =
        [Operation::Put(at, 1, Life::Millis(5)), Operation::Advance(4), Operation::Get(at)];
    assert_eq!(replay(Lab::<stores::Sound>::default(), &sequence).await, Ok(()));
    assert!(replay(Lab::<stores::ExpiresEarly>::default(), &sequence).await.is_err());
}
