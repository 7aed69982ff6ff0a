//! The life of VFs carried out: plans applied, leases taken and given back, namespaces erased, half-done work finished.
