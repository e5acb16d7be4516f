use super::*;

#[test]
fn smoke() {
    let mut stage = proxy(|_| {});
    stage.says(0, 1, Allow, SSM, &[1, 2]);
    assert_eq!(stage.joined(SSM), "in {1 2}");
    assert_eq!(stage.words(), [format!("ALLOW {SSM} {{1 2}}")]);
    let start = stage.millis();
    stage.says(0, 1, Block, SSM, &[1]);
    stage.pass(5);
    println!("{:?}", stage.words_since(start));
    assert_eq!(stage.joined(SSM), "in {2}");
    assert_eq!(
        stage.way(Side::Upstream, source(2), SSM),
        [Side::Downstream(0)]
    );
}
