//! tmp
fn main() {
    let args: Vec<u64> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    use raft_sim::{campaign::Campaign, registers::Registers, simulation::*};
    if args.len() == 1 {
        let watch = Watch { lines: Some(Box::new(|line| println!("{line}"))), ..Watch::default() };
        println!("{:#?}", Simulation::new(&Plan::new(args[0], 8000), Registers, watch).run());
        return;
    }
    let c = Campaign::new(args[0], args[1], 8000);
    let o = c.run(|p, w| Simulation::new(p, Registers, w).run(), |_| {});
    println!("{:#?}", o.report.counts());
    println!("{} events/s", o.report.events as f64 / o.elapsed.as_secs_f64());
    for f in &o.failures { println!("{} {}", f.seed, f.broken.to_string().chars().take(150).collect::<String>()); }
    println!("{} failures", o.failures.len());
}
