//! The HTTP edge: our API and the AWS data plane.
