//! What readers and those who rename objects are promised on a cluster, through faults of a bucket's leader. What is promised to a
//! service and its callers is in `cluster_faults`.

mod lost_requests;
mod renames;
mod watches;
