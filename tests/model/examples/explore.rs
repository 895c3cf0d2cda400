//! A page on which one steps through the model: `cargo run -p understudy-model --example explore`, then <http://127.0.0.1:3000>.

use stateright::Model;

fn main() {
    model::Protocol::default().checker().serve("127.0.0.1:3000");
}
