//! The programs as a user runs them, with real processes, servers, files and terminals.
//!
//! All are in one test program: it is linked once, and while a test of one file waits, those of others run.

#[path = "../support/browser.rs"]
mod browser;
#[path = "../support/gate.rs"]
mod gate;
#[path = "../support/hostile.rs"]
mod hostile;
#[path = "../support/programs.rs"]
mod programs;
#[path = "../support/scripted_server.rs"]
mod scripted_server;

mod bad_input;
mod bench;
mod compare;
mod compare_tasks;
mod dashboard;
mod demo;
mod documents;
mod download;
mod fetch;
mod flag_server;
mod hosts;
mod interrupt;
mod job_control;
mod limits;
mod logs;
mod network;
mod other_programs;
mod output;
mod recovery;
mod resume;
mod serve;
mod surroundings;
mod timeline;
mod update;
mod urls;
mod worker_program;
