//! Small things shared by everything that touches the machine.
