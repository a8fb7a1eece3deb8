//! The leaderboard in the simulation: what its clients see, and who judges it.

pub mod registers;
