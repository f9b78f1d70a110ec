//! Who is known to own what.
