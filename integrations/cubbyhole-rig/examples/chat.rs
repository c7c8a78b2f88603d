//! A conversation that continues after a restart: `cargo run --example chat -- redb:chat.redb`.
//!
//! A model is not needed: the example answers each message itself.
#![expect(clippy::print_stdout, clippy::disallowed_macros, reason = "the example prints its steps")]

use std::error::Error;

use cubbyhole::{ExecutionContext, Namespace};
use cubbyhole_rig::CubbyholeMemory;
use rig_core::completion::Message;
use rig_core::memory::ConversationMemory;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "redb:chat.redb".to_owned());
    let ctx = ExecutionContext::new();
    let store = cubbyhole::open(&ctx, &url).await?;
    let memory = CubbyholeMemory::new(store.clone(), Namespace::parse("acme:agent-7")?)
        .with_last_messages(20);

    let conversation = "thread-1".into();
    let before = memory.load(&conversation).await?.len();
    let number = before / 2 + 1;
    let turn = vec![
        Message::user(format!("This is my message {number}.")),
        Message::assistant(format!("I remember {before} messages.")),
    ];
    memory.append(&conversation, turn).await?;
    println!("turn {number}: {before} messages were in memory");
    store.close(&ctx).await?;
    Ok(())
}
