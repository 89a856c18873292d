//! What the tests start, and stop again by its id.
