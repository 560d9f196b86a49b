//! The operator's view of what may be sold of each pool, and why.

use sublet_cloud::data::SellingMode;
use sublet_cloud::demand::PoolStatement;
use sublet_core::notice::NoticeClass;

/// A pool in the page of the fleet.
pub struct PoolRow {
    pub name: String,
    pub summary: String,
    /// Empty until a curve was decided.
    pub levels: Vec<LevelRow>,
}

/// One class of a curve.
pub struct LevelRow {
    pub notice: NoticeClass,
    pub units: u32,
    pub sold: u32,
    pub why: String,
}

/// By what is sold, for people.
pub const fn selling(mode: SellingMode) -> &'static str {
    match mode {
        SellingMode::Static => "Customers get what the reserve rule leaves; nothing is learned.",
        SellingMode::Shadow => "Customers get what the reserve rule leaves; what was learned is only shown.",
        SellingMode::Learned => "Customers get the lesser of what the reserve rule and the curve leave; surplus is given back.",
        SellingMode::Nothing => "Customers get nothing new; what was learned is only shown.",
    }
}

pub fn rows(pools: &[PoolStatement]) -> Vec<PoolRow> {
    pools.iter().map(row).collect()
}

fn row(pool: &PoolStatement) -> PoolRow {
    let outside = pool.reported.map_or(0, |reported| reported.in_use);
    let curve = match pool.curve {
        None => "no curve was decided".to_owned(),
        Some(curve) if pool.is_fresh() => format!("the curve is of {}", curve.decided_at),
        Some(curve) => format!("the curve is of {} and was not renewed: by it nothing is sold", curve.decided_at),
    };
    let figures = &pool.figures;
    let summary = format!(
        "{} healthy, {} in use by own teams or held for them, {outside} used outside, {} idle; {curve}",
        figures.capacity, figures.internal, figures.idle
    );
    let levels = pool.curve.iter().flat_map(|curve| {
        let classes = NoticeClass::ALL.into_iter().zip(curve.levels).zip(pool.sold);
        classes.map(|((notice, level), sold)| LevelRow { notice, units: level.units, sold, why: level.reason.to_string() })
    });
    PoolRow { name: pool.pool.to_string(), summary, levels: levels.collect() }
}
