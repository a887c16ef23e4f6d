//! A service on tokio. A request whose client is gone ends its task; at the end, those at work are finished,
//! if they take no longer than they may.

use std::time::Duration;

use procession::{Executor, ProcessPool, Shutdown};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[procession::task]
fn answer(question: u8) -> u8 {
    std::thread::sleep(Duration::from_secs(if question == b'?' { 3600 } else { 0 }));
    question.to_ascii_uppercase()
}

async fn serve(
    mut client: TcpStream,
    pool: &ProcessPool,
) -> Result<(), Box<dyn std::error::Error>> {
    let question = client.read_u8().await?;
    tokio::select! {
        // Dropped with the other branch, which cancels the task.
        answer = pool.submit(answer(question)).cancel_on_drop() => client.write_u8(answer?).await?,
        _ = client.read_u8() => println!("the client of {:?} is gone", char::from(question)),
    }
    Ok(())
}

#[procession::main]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = ProcessPool::builder().workers(2).build()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;

    let mut client = TcpStream::connect(address).await?; // two clients, one after the other
    client.write_u8(b'a').await?;
    serve(listener.accept().await?.0, &pool).await?;
    println!("{:?}", char::from(client.read_u8().await?));

    let mut hasty = TcpStream::connect(address).await?;
    hasty.write_u8(b'?').await?;
    drop(hasty);
    serve(listener.accept().await?.0, &pool).await?;

    // The end, at SIGTERM say: what runs is finished, but not for an hour.
    let stuck = pool.submit(answer(b'?'));
    let drain = pool.shutdown_async(Shutdown::Wait);
    if tokio::time::timeout(Duration::from_millis(200), drain).await.is_err() {
        pool.shutdown_async(Shutdown::Kill).await;
    }
    println!("at the end: {:?}", stuck.await);
    println!("{} done, {} cancelled", pool.stats().done, pool.stats().cancelled);
    Ok(())
}
