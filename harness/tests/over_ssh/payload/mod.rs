//! Upload, suite and collection.

mod collecting;
mod endings;
mod guest;
mod results;
mod uploads;
