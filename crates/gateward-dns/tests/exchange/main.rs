//! Updates, transfers, notifications and catalogs over real sockets: two of our servers with each other, and ours with
//! nsupdate, dig, dnspython, named and knotd.

mod kept;
mod memory;
mod ours;
mod peers;
mod tools;
