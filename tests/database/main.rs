//! The Postgres schema, proven on a real Postgres behind a real PostgREST: its rules, who reaches what, and what holds under races.

mod attackers;
mod audit;
mod calls;
mod capabilities;
mod functions;
mod gate;
mod independent;
mod logins;
mod pages;
mod people;
mod races;
mod rest;
mod rls;
mod sessions;
mod tables;
mod world;
