//! images
pub struct Images;
