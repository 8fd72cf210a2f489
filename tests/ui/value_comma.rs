//! A forgotten comma is where it is.
mitogen::value! {
    struct Usage {
        path: String
        n: u32, //~ no rules expected `n`
    }
}
