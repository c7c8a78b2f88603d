//! Errors: they have the right kind, name their operation, and contain no values.

use cubbyhole_core::{
    Batch, Condition, Error, ErrorKind, Expiry, GetOptions, PutOptions, RecursiveScanOptions,
    ScanOptions, Version,
};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, Stop, check, check_eq, refused};
use crate::world::World;

cases! {
    /// A mistake of the caller does not look like an outage: the error is `InvalidArgument`, not
    /// retryable, and certainly without effect.
    #[case(tenant, core)]
    async fn core_invalid_argument_is_not_retryable<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let errors = [
            w.put(&ns, "a\0", 1).await.err(),
            w.get(&ns, "a\0").await.err(),
            w.delete(&ns, "a\0").await.err(),
            w.list(&ns, Some("a\0")).await.err(),
            w.put_for(&ns, "k", 1, std::time::Duration::ZERO).await.err(),
        ];
        for error in errors {
            let error = error.ok_or_else(|| {
                Stop::failed("a call with an invalid argument must fail, but succeeded")
            })?;
            is_no_outage(&error)?;
        }
        Ok(())
    }

    /// The same holds for every method of `EntryStore`: a mistake of the caller is
    /// `InvalidArgument`, not retryable, and certainly without effect.
    #[case(tenant, entry)]
    async fn entry_invalid_argument_is_not_retryable<V: Sample>(w: &World<V>) -> Outcome {
        for (_, error) in invalid_calls(w).await? {
            is_no_outage(&error)?;
        }
        Ok(())
    }

    /// Every error names the operation that failed, and its text starts with the name.
    #[case(tenant, entry)]
    async fn error_names_its_operation<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let core = [
            ("put", w.put(&ns, "a\0", 1).await.err()),
            ("get", w.get(&ns, "a\0").await.err()),
            ("delete", w.delete(&ns, "a\0").await.err()),
            ("list", w.list(&ns, Some("a\0")).await.err()),
        ];
        let mut errors = invalid_calls(w).await?;
        for (operation, error) in core {
            let error = error.ok_or_else(|| {
                Stop::failed("a call with an invalid argument must fail, but succeeded")
            })?;
            errors.push((operation, error));
        }
        for (operation, error) in errors {
            let named = error.operation() == Some(operation);
            check!(named, "the error must name the operation `{operation}`: {error:?}");
            let shown = error.to_string();
            let starts = error.operation().is_some_and(|name| shown.starts_with(name));
            check!(starts, "the text of the error must start with `{operation}`: {shown}");
        }
        Ok(())
    }

    /// A conflict names its operation, and contains no value.
    #[case(tenant, entry)]
    async fn conflict_contains_no_value<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        let (none, stale) = (PutOptions::new(), Condition::IfVersion(Version::draw()));
        let batch = Batch::new().put_with("k", V::sample(2), none, stale);
        let conflicts = [
            ("put_entry", w.put_entry(&ns, "k", 2, none, Condition::IfAbsent).await.err()),
            ("delete_entry", w.store().delete_entry(w.ctx(), &ns, "k", stale).await.err()),
            ("touch", w.store().touch(w.ctx(), &ns, "k", Expiry::Never, stale).await.err()),
            ("write", w.store().write(w.ctx(), &ns, batch).await.err()),
        ];
        for (operation, error) in conflicts {
            let error = error.ok_or_else(|| {
                Stop::failed("a call whose condition does not hold must fail, but succeeded")
            })?;
            if error.kind() != ErrorKind::Conflict {
                return Err(Stop::unexpected(
                    error,
                    "the call must fail with a conflict, but failed with",
                ));
            }
            check_eq!(error.operation(), Some(operation), "the operation in the error");
            check_eq!(
                error.batch_index(),
                (operation == "write").then_some(0),
                "the batch index in the error"
            );
            contains_no_value::<V>(&error)?;
        }
        Ok(())
    }

    /// Errors of `Store` contain no value: neither the one to write nor a stored one.
    #[case(tenant, core)]
    async fn core_error_contains_no_value<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        let long = "x".repeat(1025);
        let errors = [
            w.put(&ns, "a\0", 1).await.err(),
            w.put(&ns, &long, 1).await.err(),
            w.put_for(&ns, "k", 1, std::time::Duration::ZERO).await.err(),
            w.put_for(&ns, "k", 1, std::time::Duration::MAX).await.err(),
        ];
        for error in errors {
            let error = error.ok_or_else(|| {
                Stop::failed("a call with an invalid argument must fail, but succeeded")
            })?;
            contains_no_value::<V>(&error)?;
        }
        Ok(())
    }

    /// Errors of `EntryStore` contain no value.
    #[case(tenant, entry)]
    async fn entry_error_contains_no_value<V: Sample>(w: &World<V>) -> Outcome {
        for (_, error) in invalid_calls(w).await? {
            contains_no_value::<V>(&error)?;
        }
        Ok(())
    }

    /// An error about a length names the limit, its value, and the length.
    #[case(tenant, core)]
    async fn length_error_names_limit_and_length<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let put = w.put(&ns, &"x".repeat(1025), 1).await;
        let error = refused(put, ErrorKind::InvalidArgument, "a key past the limit")?;
        for part in ["key", "1025", "1024", "MAX_KEY_BYTES"] {
            check!(error.message().contains(part), "the message must contain `{part}`: {error}");
        }
        Ok(())
    }
}

/// Calls methods of `EntryStore` with an invalid argument, and returns the errors.
async fn invalid_calls<V: Sample>(w: &World<V>) -> Outcome<Vec<(&'static str, Error)>> {
    let (s, ctx, ns, all) = (w.store(), w.ctx(), w.ns(&["a"])?, w.everything());
    let (bad, none, always) = ("a\0", PutOptions::new(), Condition::Always);
    let batch = || Batch::new().put("k", V::sample(1)).put("k", V::sample(2));
    let page = ScanOptions::new().with_limit(0);
    let deep = RecursiveScanOptions::new().with_limit(0);
    let mut results = vec![
        ("get_entry", s.get_entry(ctx, &ns, bad, GetOptions::new()).await.err()),
        ("get_many", s.get_many(ctx, &ns, &["k", bad], GetOptions::new()).await.err()),
        ("stat", s.stat(ctx, &ns, &["k", bad]).await.err()),
        ("put_entry", s.put_entry(ctx, &ns, bad, V::sample(1), none, always).await.err()),
        ("delete_entry", s.delete_entry(ctx, &ns, bad, always).await.err()),
        ("write", s.write(ctx, &ns, batch()).await.err()),
        ("scan", s.scan(ctx, &ns, page).await.err()),
        ("scan_recursive", s.scan_recursive(ctx, &all, deep).await.err()),
        ("scan_namespaces", s.scan_namespaces(ctx, &all, None, 0).await.err()),
        ("touch", s.touch(ctx, &ns, bad, Expiry::Never, always).await.err()),
        ("take", s.take(ctx, &ns, bad).await.err()),
        ("delete_prefix", s.delete_prefix(ctx, &ns, bad, 10).await.err()),
        ("erase", s.erase(ctx, &all, 0).await.err()),
    ];
    if w.can().sees_tenants {
        results.push(("scan_tenants", s.scan_tenants(ctx, None, 0).await.err()));
    }
    let mut errors = Vec::with_capacity(results.len());
    for (operation, error) in results {
        let error = error.ok_or_else(|| {
            Stop::failed(format!("{operation} with an invalid argument must fail, but succeeded"))
        })?;
        if error.kind() != ErrorKind::InvalidArgument {
            return Err(Stop::unexpected(
                error,
                "the call must fail with an invalid argument, but failed with",
            ));
        }
        errors.push((operation, error));
    }
    Ok(errors)
}

fn is_no_outage(error: &Error) -> Outcome {
    check_eq!(error.kind(), ErrorKind::InvalidArgument, "the kind of {error}");
    check!(!error.is_retryable(), "an invalid argument must not be retryable: {error}");
    check!(
        !error.may_have_been_applied(),
        "an invalid argument must certainly have no effect: {error}"
    );
    Ok(())
}

/// Checks that an error and its sources, as text and in debug form, do not contain the marker of a
/// sample value.
fn contains_no_value<V: Sample>(error: &Error) -> Outcome {
    let Some(marker) = V::marker() else {
        return Err(Stop::ignored("the value type has no marker: `Sample::marker`"));
    };
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        let texts = format!("{error} {error:?}");
        check!(!texts.contains(marker), "an error contains a value: {texts}");
        source = error.source();
    }
    Ok(())
}
