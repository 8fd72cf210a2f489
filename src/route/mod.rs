//! Who may talk to whom, and by which stream: ids, routes, handles, and the pace of what is sent.

pub mod heartbeat;
pub mod files;
pub mod terms;
pub mod identity;
pub mod lease;
pub mod table;
pub mod policy;
pub mod unguessable;
pub mod owed;
pub mod pending;
pub mod credit;
pub mod node;
pub mod census;
pub mod send;
pub mod refusal;
pub mod peer;
pub mod control;
pub mod cut;

#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod logged_tests;
#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod lease_tests;
#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod pending_tests;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod sim_parcels;
#[cfg(test)]
mod sim_traffic;
#[cfg(test)]
mod sim_tests;
#[cfg(test)]
mod sim_races;
