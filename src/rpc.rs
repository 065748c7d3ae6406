//! The control plane over gRPC: conversion at the edge, status codes, services, the client.

pub mod access;
pub mod alert;
mod approval;
pub mod audit;
pub mod auditlog;
pub mod client;
pub mod convert;
mod inventory;
pub mod operation;
pub mod overview;
mod pace;
pub mod service;
pub mod status;
pub mod strategy;

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated from proto/"
)]
pub mod proto {
    tonic::include_proto!("nexus.v1");

    /// The descriptor set, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/nexus.v1.bin"));
}
