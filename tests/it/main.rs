//! The real `procmand`, from outside: each test starts one of its own, asks it over its own endpoint, and proves at the end that nothing is left.

// `cfg(test)` is always so here; it tells clippy that the helpers are tests, too.
#[cfg(test)]
mod harness;

#[cfg(test)]
mod access;
#[cfg(test)]
mod adoption;
#[cfg(test)]
mod attackers;
#[cfg(test)]
mod attributes;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod cgse;
#[cfg(test)]
mod cgse_core;
#[cfg(test)]
mod cgse_faults;
#[cfg(test)]
mod cgse_health;
#[cfg(test)]
mod cgse_hubs;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod containment;
#[cfg(test)]
mod control_server;
#[cfg(test)]
mod ctl;
#[cfg(test)]
mod durable;
#[cfg(test)]
mod events;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod frames;
#[cfg(test)]
mod handover;
#[cfg(test)]
mod hanging;
#[cfg(test)]
mod health;
#[cfg(test)]
mod history;
#[cfg(test)]
mod instances;
#[cfg(test)]
mod leaving;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod logs_disk;
#[cfg(test)]
mod lost;
#[cfg(test)]
mod notify;
#[cfg(test)]
mod order;
#[cfg(test)]
mod orphans;
#[cfg(test)]
mod pains;
#[cfg(test)]
mod policy;
#[cfg(test)]
mod prometheus;
#[cfg(test)]
mod python;
#[cfg(test)]
mod quit;
#[cfg(test)]
mod ready;
#[cfg(test)]
mod reap;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod repeats;
#[cfg(test)]
mod runs;
#[cfg(test)]
mod scarce;
#[cfg(test)]
mod schedule;
#[cfg(test)]
mod starting;
#[cfg(test)]
mod stop_request;
#[cfg(test)]
mod storm;
#[cfg(test)]
mod together;
#[cfg(test)]
mod torment;
#[cfg(test)]
mod twelve;
#[cfg(test)]
mod upgrading;
