//! Tests of `Compressed`: damage, bombs, limits and blocking.

use std::pin::pin;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Poll, Waker};

use cubbyhole_core::{
    Batch, Condition, ErrorKind, ExecutionContext, GetOptions, Namespace, NamespacePrefix,
    PutOptions, ScanOptions,
};
use cubbyhole_memory::InMemoryStore;
use proptest::prelude::*;
use zstd::zstd_safe::CParameter;

use super::transform::{AS_IT_IS, MIN_BYTES, ZSTD};
use super::*;

const LIMIT: usize = DEFAULT_MAX_VALUE_BYTES;

type Memory = InMemoryStore<Bytes>;

fn zstd() -> Zstd {
    Zstd::new(DEFAULT_COMPRESSION_LEVEL, LIMIT)
}

fn memory() -> Memory {
    InMemoryStore::builder().with_value_size(Bytes::len).build()
}

fn ns() -> Namespace {
    Namespace::parse("acme:a").unwrap()
}

/// Bytes that zstd cannot shorten.
fn noise(length: usize) -> Bytes {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.u8(..)).take(length).collect::<Vec<u8>>().into()
}

fn repeated(length: usize) -> Bytes {
    b"compressible ".iter().copied().cycle().take(length).collect::<Vec<u8>>().into()
}

fn framed(value: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(value, 3).unwrap()
}

fn stored(first: u8, rest: &[u8]) -> Bytes {
    [&[first], rest].concat().into()
}

fn corrupt(stored: &Bytes) -> Error {
    let error = zstd().decompress(stored).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    error
}

proptest! {
    #[test]
    fn values_are_read_back(
        unit in prop::collection::vec(any::<u8>(), 0..300),
        times in 0_usize..200,
        level in prop::sample::select(vec![1, 3, 6, 12]),
    ) {
        let value = unit.repeat(times);
        let zstd = Zstd::new(level, LIMIT);
        let stored = zstd.compress(&value).unwrap();
        prop_assert!(stored.len() <= value.len() + 1);
        prop_assert_eq!(zstd.decompress(&stored).unwrap(), value.clone());
        // Another level reads it too.
        prop_assert_eq!(super::tests::zstd().decompress(&stored).unwrap(), value);
    }

    #[test]
    fn arbitrary_stored_bytes_never_panic(
        first in prop::sample::select(vec![AS_IT_IS, ZSTD, 2, 0x28]),
        magic in any::<bool>(),
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let magic: &[u8] = if magic { &[0x28, 0xb5, 0x2f, 0xfd] } else { &[] };
        let result = zstd().decompress(&stored(first, &[magic, &rest].concat()));
        if let Err(error) = result {
            prop_assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
    }
}

#[test]
fn value_is_compressed_only_where_that_saves() {
    let zstd = zstd();
    for length in [0, 1, MIN_BYTES - 1] {
        let value = repeated(length);
        assert_eq!(zstd.compress(&value).unwrap(), stored(AS_IT_IS, &value));
    }
    for length in [MIN_BYTES, 1000, 300_000] {
        let compressed = zstd.compress(&repeated(length)).unwrap();
        assert_eq!(compressed[0], ZSTD);
        assert!(compressed.len() < length, "{length}");
        let value = noise(length);
        assert_eq!(zstd.compress(&value).unwrap(), stored(AS_IT_IS, &value));
    }
}

#[test]
fn frame_is_kept_exactly_if_it_is_shorter_than_the_value() {
    // Noise with a growing repeated end: somewhere the frame becomes shorter by one byte.
    let mut lengths = Vec::new();
    for repeat in 0..80 {
        let value = [noise(200), repeated(13), repeated(13), vec![b'x'; repeat].into()].concat();
        let mut compressor = zstd::bulk::Compressor::new(3).unwrap();
        compressor.set_parameter(CParameter::ChecksumFlag(true)).unwrap();
        let frame = compressor.compress(&value).unwrap();
        let stored = zstd().compress(&value).unwrap();
        let expected = if frame.len() < value.len() { 1 + frame.len() } else { 1 + value.len() };
        assert_eq!(stored.len(), expected);
        lengths.push(stored[0]);
    }
    assert!(lengths.contains(&AS_IT_IS) && lengths.contains(&ZSTD), "{lengths:?}");
}

#[test]
fn value_above_the_decompression_limit_is_not_compressed() {
    let zstd = Zstd::new(DEFAULT_COMPRESSION_LEVEL, 1000);
    for (length, first) in [(1000, ZSTD), (1001, AS_IT_IS)] {
        let stored = zstd.compress(&repeated(length)).unwrap();
        assert_eq!(stored[0], first);
        assert_eq!(zstd.decompress(&stored).unwrap(), repeated(length));
    }
}

#[test]
fn bombs_are_corrupt() {
    // It really contains so much.
    let error = corrupt(&stored(ZSTD, &framed(&vec![0; LIMIT + 1])));
    assert!(error.message().contains("more than the limit"), "{error}");
    zstd().decompress(&stored(ZSTD, &framed(&vec![0; LIMIT]))).unwrap();

    // It claims a terabyte: a header with an 8-byte content size, and nothing.
    let mut claim = vec![0x28, 0xb5, 0x2f, 0xfd, 0xe0];
    claim.extend_from_slice(&(1_u64 << 40).to_le_bytes());
    corrupt(&stored(ZSTD, &claim));

    // It claims less than it contains.
    let mut lie = framed(&vec![0; 1 << 20]);
    let single_segment_4_bytes = 0xa0;
    assert_eq!(lie[4] & !4, single_segment_4_bytes);
    lie[5..9].copy_from_slice(&200_u32.to_le_bytes());
    corrupt(&stored(ZSTD, &lie));
    // And more.
    lie[5..9].copy_from_slice(&(2_u32 << 20).to_le_bytes());
    corrupt(&stored(ZSTD, &lie));

    // It claims nothing.
    let mut compressor = zstd::bulk::Compressor::new(3).unwrap();
    compressor.set_parameter(CParameter::ContentSizeFlag(false)).unwrap();
    corrupt(&stored(ZSTD, &compressor.compress(&[0; 5000]).unwrap()));
}

#[test]
fn anything_but_one_whole_frame_is_corrupt() {
    let frame = framed(&repeated(5000));
    for length in 0..frame.len() {
        corrupt(&stored(ZSTD, &frame[..length]));
    }
    corrupt(&stored(ZSTD, &[&frame[..], &[0]].concat()));
    corrupt(&stored(ZSTD, &[&frame[..], &frame[..]].concat()));
    // A frame that decompressors skip.
    let skipped = [0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
    corrupt(&stored(ZSTD, &skipped));
    corrupt(&stored(ZSTD, &[&skipped[..], &frame[..]].concat()));
    corrupt(&stored(ZSTD, &[&frame[..], &skipped[..]].concat()));
    corrupt(&Bytes::new());
    for first in 2..=u8::MAX {
        corrupt(&stored(first, &frame));
    }
}

#[test]
fn damage_of_a_compressed_value_never_gives_another_value() {
    for value in [repeated(5000), [noise(300), repeated(2000), noise(300)].concat().into()] {
        let zstd = zstd();
        let intact = zstd.compress(&value).unwrap();
        assert_eq!(intact[0], ZSTD);
        let mut found = 0;
        // The first byte has no redundancy: as 0 it is valid.
        for index in 1..intact.len() {
            for bit in 0..8 {
                let mut damaged = intact.to_vec();
                damaged[index] ^= 1 << bit;
                match zstd.decompress(&damaged.into()) {
                    // zstd ignores one bit of the header.
                    Ok(read) => assert_eq!(read, value, "bit {bit} of byte {index}"),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Corrupt);
                        found += 1;
                    }
                }
            }
        }
        assert!(found >= 8 * (intact.len() - 2), "{found}");
        // The contexts still work after all these errors.
        assert_eq!(zstd.decompress(&intact).unwrap(), value);
    }
}

#[test]
fn errors_contain_no_value() {
    let value = "SECRET ".repeat(1000);
    let intact = zstd().compress(value.as_bytes()).unwrap();
    let mut damaged = intact.to_vec();
    damaged[20] ^= 255;
    for stored in [damaged.into(), Bytes::from(value.clone()), intact.slice(..intact.len() - 1)] {
        let error = corrupt(&stored);
        assert!(!format!("{error:?} {error}").contains("SECRET"));
    }
    assert!(!format!("{:?}", zstd()).contains("SECRET"));
}

#[tokio::test]
async fn largest_value_is_accepted_and_fits() {
    let (ctx, ns) = (&ExecutionContext::new(), &ns());
    let store = Compressed::new(memory());
    assert_eq!(store.max_value_bytes(), Some(LIMIT - 1));
    for value in [noise(LIMIT - 1), repeated(LIMIT - 1)] {
        store.put(ctx, ns, "k", value.clone()).await.unwrap();
        assert!(store.get(ctx, ns, "k").await.unwrap().unwrap() == value);
    }
    let error = store.put(ctx, ns, "k", repeated(LIMIT)).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::InvalidArgument, Some("put")));
    // Without a limit in the store, longer values are stored as they are.
    let store = Compressed::new(Memory::new());
    assert_eq!(store.max_value_bytes(), None);
    let long = repeated(LIMIT + 1);
    store.put(ctx, ns, "k", long.clone()).await.unwrap();
    assert!(store.get(ctx, ns, "k").await.unwrap().unwrap() == long);
    assert_eq!(store.inner().get(ctx, ns, "k").await.unwrap().unwrap()[0], AS_IT_IS);
}

#[tokio::test]
async fn value_stays_readable_after_the_limit_is_lowered() {
    let (ctx, ns) = (&ExecutionContext::new(), &ns());
    let small = InMemoryStore::builder().with_value_size(Bytes::len).with_max_value_bytes(1000);
    let store = Compressed::new(small.build());
    assert_eq!(store.max_value_bytes(), Some(999));
    // As a store with a higher limit wrote it.
    let value = repeated(20_000);
    store.inner().put(ctx, ns, "k", zstd().compress(&value).unwrap()).await.unwrap();
    assert_eq!(store.get(ctx, ns, "k").await.unwrap(), Some(value));
}

#[tokio::test]
async fn every_call_stores_and_reads_the_stored_form() {
    let (ctx, ns) = (&ExecutionContext::new(), &ns());
    let value = repeated(10_000);
    let (options, always) = (PutOptions::new(), Condition::Always);
    let store = Compressed::new(memory()).with_level(19).unwrap();
    store.put(ctx, ns, "a", value.clone()).await.unwrap();
    store.put_with_options(ctx, ns, "b", value.clone(), options).await.unwrap();
    store.put_entry(ctx, ns, "c", value.clone(), options, always).await.unwrap();
    store.write(ctx, ns, Batch::new().put("d", value.clone())).await.unwrap();

    let keys = ["a", "b", "c", "d"];
    for stat in store.stat(ctx, ns, &keys).await.unwrap() {
        assert!(stat.unwrap().value_bytes.unwrap() < 100);
    }
    let usage = store.usage(ctx, &NamespacePrefix::from(ns)).await.unwrap();
    assert!(usage.bytes.unwrap() < 400);
    for answer in store.get_many(ctx, ns, &keys, GetOptions::new()).await.unwrap() {
        assert_eq!(answer.unwrap().unwrap().value, value);
    }
    for item in store.scan(ctx, ns, ScanOptions::new()).await.unwrap().items {
        assert_eq!(item.value.unwrap().unwrap(), value);
    }
    assert_eq!(store.take(ctx, ns, "a").await.unwrap().unwrap().value, value);
    assert_eq!(store.get(ctx, ns, "a").await.unwrap(), None);
}

#[tokio::test]
async fn corrupt_value_is_not_taken_and_fails_only_its_item() {
    let (ctx, ns) = (&ExecutionContext::new(), &ns());
    let store = Compressed::new(memory());
    store.inner().put(ctx, ns, "bad", Bytes::from_static(b"plain")).await.unwrap();
    store.put(ctx, ns, "good", repeated(100)).await.unwrap();
    let error = store.take(ctx, ns, "bad").await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Corrupt, Some("take")));
    assert_eq!(store.list(ctx, ns, None).await.unwrap(), ["bad", "good"]);
    let page = store.scan(ctx, ns, ScanOptions::new()).await.unwrap();
    let values: Vec<_> = page.items.into_iter().map(|item| item.value.unwrap()).collect();
    assert_eq!(values[0].as_ref().unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(values[1].as_ref().unwrap(), &repeated(100));
}

#[test]
fn large_values_need_no_runtime() {
    let (ctx, ns) = (&ExecutionContext::new(), &ns());
    let store = Compressed::new(memory());
    let value = repeated(1 << 20);
    let mut calls = pin!(async {
        store.put(ctx, ns, "k", value.clone()).await.unwrap();
        store.get(ctx, ns, "k").await.unwrap()
    });
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(calls.as_mut().poll(&mut context), Poll::Ready(Some(value.clone())));
}

/// A runtime whose only thread for blocking work waits until the sender is dropped.
fn with_busy_blocking_thread<T>(test: impl AsyncFnOnce(Sender<()>) -> T) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.max_blocking_threads(1).build().unwrap();
    let (sender, receiver) = channel::<()>();
    drop(runtime.spawn_blocking(move || receiver.recv()));
    runtime.block_on(test(sender))
}

#[test]
fn large_values_are_compressed_off_the_runtime_threads() {
    let (ctx, ns) = (&ExecutionContext::new(), &ns());
    for (level, length) in [(3, 64 * 1024), (9, 8 * 1024), (19, 2 * 1024)] {
        let store = Compressed::new(memory()).with_level(level).unwrap();
        with_busy_blocking_thread(async |busy| {
            let below = store.put(ctx, ns, "k", repeated(length - 1));
            assert!(matches!(futures_poll(pin!(below)).await, Poll::Ready(Ok(()))));
            let mut put = pin!(store.put(ctx, ns, "k", repeated(length)));
            assert!(futures_poll(put.as_mut()).await.is_pending(), "level {level}");
            drop(busy);
            put.await.unwrap();
        });
    }
    for (length, waits) in [(128 * 1024 - 1, false), (128 * 1024, true)] {
        let store = Compressed::new(memory());
        let compressed = zstd().compress(&repeated(length)).unwrap();
        with_busy_blocking_thread(async |busy| {
            store.inner().put(ctx, ns, "k", compressed).await.unwrap();
            let mut get = pin!(store.get(ctx, ns, "k"));
            let first = futures_poll(get.as_mut()).await;
            assert_eq!(first.is_pending(), waits, "{length} bytes");
            drop(busy);
            let value = match first {
                Poll::Ready(value) => value,
                Poll::Pending => get.await,
            };
            assert_eq!(value.unwrap().unwrap(), repeated(length));
        });
    }
}

async fn futures_poll<F: Future>(mut call: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await
}

#[test]
fn cancelled_compression_writes_nothing() {
    let (ctx, ns) = (ExecutionContext::new(), &ns());
    let store = Compressed::new(memory());
    with_busy_blocking_thread(async |_busy| {
        let mut put = pin!(store.put(&ctx, ns, "k", repeated(2 << 20)));
        assert!(futures_poll(put.as_mut()).await.is_pending());
        ctx.cancel();
        let error = put.await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Cancelled, Some("put")));
        assert!(!error.may_have_been_applied());
        assert_eq!(store.get(&ExecutionContext::new(), ns, "k").await.unwrap(), None);
    });
}

#[test]
fn level_outside_the_range_is_refused() {
    for level in [i32::MIN, -1, 0, 20, i32::MAX] {
        let error = Compressed::new(memory()).with_level(level).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("1 to 19"), "{error}");
    }
    for level in [1, 19] {
        Compressed::new(memory()).with_level(level).unwrap();
    }
}
