//! The reports of whole runs, as people and programs get them.

mod correlation;
mod counts;
mod damage;
mod fixture;
mod fold;
mod html;
mod installed;
mod journal;
mod junit;
mod large;
mod machines;
mod network;
mod render;
mod resume;
mod runners;
mod systems;
mod templates;
mod terminal;
