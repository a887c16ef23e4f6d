//! Tasks of [procession] on many hosts, over [NATS JetStream](https://docs.nats.io/nats-concepts/jetstream).
//!
//! ```text
//!   program                       NATS servers                        hosts
//!  ┌──────────────┐  queue    ┌────────────────────┐  pull    ┌───────────────────────┐
//!  │ Cluster      │ ────────► │ tasks: work queue  │ ───────► │ Agent ─► ProcessPool  │
//!  │  submit, map │           │ records: who has   │ ◄──────► │  claims, runs, writes │
//!  │  future      │ ◄──────── │   which task       │  claim,  ├───────────────────────┤
//!  └──────────────┘  records  │ hosts: leases      │  result  │ Agent ─► ProcessPool  │
//!                             └────────────────────┘          └───────────────────────┘
//! ```
//!
//! [`Cluster`] is an executor like [`ProcessPool`](procession::ProcessPool): `submit`, `map`, `as_completed`
//! and futures are the same. An [`Agent`] on each host wraps one local process pool, so deadlines, crashes,
//! recycling and the sandbox stay what they are; NATS handles only the death of hosts.
//!
//! An acknowledgement is not a claim: servers forget acknowledgements, and deliver messages again. Who has a
//! task is decided by a record, which a server takes only if the record before it is the expected one. So
//! of two agents one gets the task, a late result is refused, and the tasks that a dead host had not begun
//! run on other hosts. `docs/hosts.md` in the repository has the guarantees, and what they do not cover.
//!
//! | module | what it does |
//! |---|---|
//! | `task_record.rs`, `cas_write.rs` | the records of a task, and how one is written |
//! | `owner.rs`, `holder.rs` | the two sides of a task, as pure state machines; `simulation.rs` tries them out |
//! | `members.rs` | some of the tasks of a bundle, which travel together |
//! | `cluster.rs` | the executor; its driver and its upkeep |
//! | `agent.rs` | lease, pull, hold |
//! | `link.rs`, `names.rs`, `message.rs` | what is asked of the servers, and what travels |
//! | `host_lease.rs`, `job_lease.rs` | which hosts live; which coordinator has a job |
//! | `delivery.rs` | who completes futures |
//! | `overview.rs`, `host_logs.rs` | the agents and the queue, and the logs of agents, for people |

mod agent;
mod apart;
mod cas_write;
mod cluster;
mod delivery;
mod holder;
mod host_lease;
mod host_logs;
mod job_lease;
mod link;
mod members;
mod message;
mod names;
mod new_nkey;
mod overview;
mod owner;
mod settings;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
mod task_record;

/// The examples of the document are tested.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/hosts.md")]
struct HostsDocument;

pub use agent::{Agent, AgentBuilder};
pub use cluster::{Cluster, ClusterBuilder, ClusterEvent, ClusterStats, HostSaid, forget};
pub use host_lease::HostLease;
pub use host_logs::{FetchedLogs, HostLogs, NoLogs, fetch_logs};
pub use new_nkey::new_nkey;
pub use overview::{HostsOverview, WaitingReason, overview};
pub use settings::ConnectSettings;
