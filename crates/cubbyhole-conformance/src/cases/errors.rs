//! Errors tell the caller what to do, and tell nobody what the values are.

use cubbyhole_core::{
    Batch, Condition, Error, ErrorKind, Expiry, GetOptions, PutOptions, ScanOptions, Version,
};

use crate::case::cases;
use crate::outcome::{Outcome, Stop, check, check_eq, refused};
use crate::Sample;
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
            let error = error.ok_or_else(|| Stop::failed("a mistake is accepted"))?;
            no_outage(&error)?;
        }
        Ok(())
    }

    /// The same holds for every method of `EntryStore`: a mistake of the caller is
    /// `InvalidArgument`, not retryable, and certainly without effect.
    #[case(tenant, entry)]
    async fn entry_invalid_argument_is_not_retryable<V: Sample>(w: &World<V>) -> Outcome {
        for (_, error) in mistakes(w).await? {
            no_outage(&error)?;
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
        let mut errors = mistakes(w).await?;
        for (operation, error) in core {
            let error = error.ok_or_else(|| Stop::failed("a mistake is accepted"))?;
            errors.push((operation, error));
        }
        for (operation, error) in errors {
            let named = error.operation() == Some(operation);
            check!(named, "not named `{operation}`: {error:?}");
            let shown = error.to_string();
            let starts = error.operation().is_some_and(|name| shown.starts_with(name));
            check!(starts, "the text does not name it: {shown}");
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
            ("write", w.store().write(w.ctx(), &ns, batch).await.err()),
        ];
        for (operation, error) in conflicts {
            let error = error.ok_or_else(|| Stop::failed("a conflict is accepted"))?;
            if error.kind() != ErrorKind::Conflict {
                return Err(Stop::unexpected(error, "not a conflict"));
            }
            check_eq!(error.operation(), Some(operation), "the operation that is named");
            check_eq!(error.batch_index(), (operation == "write").then_some(0), "the index");
            quotes_no_value::<V>(&error)?;
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
            let error = error.ok_or_else(|| Stop::failed("a mistake is accepted"))?;
            quotes_no_value::<V>(&error)?;
        }
        Ok(())
    }

    /// Errors of `EntryStore` contain no value.
    #[case(tenant, entry)]
    async fn entry_error_contains_no_value<V: Sample>(w: &World<V>) -> Outcome {
        for (_, error) in mistakes(w).await? {
            quotes_no_value::<V>(&error)?;
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
            check!(error.message().contains(part), "`{part}` is not in the message: {error}");
        }
        Ok(())
    }
}

/// One mistake for each method of `EntryStore` that can be told one.
async fn mistakes<V: Sample>(w: &World<V>) -> Outcome<Vec<(&'static str, Error)>> {
    let (s, ctx, ns, all) = (w.store(), w.ctx(), w.ns(&["a"])?, w.everything());
    let (bad, none, always) = ("a\0", PutOptions::new(), Condition::Always);
    let batch = || Batch::new().put("k", V::sample(1)).put("k", V::sample(2));
    let page = ScanOptions::new().with_limit(0);
    let mut answers = vec![
        ("get_entry", s.get_entry(ctx, &ns, bad, GetOptions::new()).await.err()),
        ("get_many", s.get_many(ctx, &ns, &["k", bad]).await.err()),
        ("put_entry", s.put_entry(ctx, &ns, bad, V::sample(1), none, always).await.err()),
        ("delete_entry", s.delete_entry(ctx, &ns, bad, always).await.err()),
        ("write", s.write(ctx, &ns, batch()).await.err()),
        ("scan", s.scan(ctx, &ns, page).await.err()),
        ("scan_namespaces", s.scan_namespaces(ctx, &all, None, 0).await.err()),
        ("touch", s.touch(ctx, &ns, bad, Expiry::Never).await.err()),
        ("take", s.take(ctx, &ns, bad).await.err()),
        ("erase", s.erase(ctx, &all, 0).await.err()),
    ];
    if w.can().sees_tenants {
        answers.push(("scan_tenants", s.scan_tenants(ctx, None, 0).await.err()));
    }
    let mut errors = Vec::with_capacity(answers.len());
    for (operation, error) in answers {
        let error = error.ok_or_else(|| Stop::failed(format!("{operation} takes a mistake")))?;
        if error.kind() != ErrorKind::InvalidArgument {
            return Err(Stop::unexpected(error, "not an invalid argument"));
        }
        errors.push((operation, error));
    }
    Ok(errors)
}

fn no_outage(error: &Error) -> Outcome {
    check_eq!(error.kind(), ErrorKind::InvalidArgument, "the kind of {error}");
    check!(!error.is_retryable(), "retryable: {error}");
    check!(!error.may_have_been_applied(), "may have been applied: {error}");
    Ok(())
}

/// Neither the text nor the debug form, nor those of any source, hold the mark of a sample.
fn quotes_no_value<V: Sample>(error: &Error) -> Outcome {
    let Some(marker) = V::marker() else {
        return Err(Stop::ignored("no mark to look for: `Sample::marker`"));
    };
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        let texts = format!("{error} {error:?}");
        check!(!texts.contains(marker), "an error shows a value: {texts}");
        source = error.source();
    }
    Ok(())
}
