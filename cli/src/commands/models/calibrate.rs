//! `kadr models calibrate`: looks at frames of clips, and writes down beside the weights what int8 numbers stand for.

use std::{num::NonZeroUsize, path::Path, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use kadr_inference::{
    Store,
    detector::calibration_path,
    fast::Calibrator,
    model::Plan,
    weights::{VerifiedWeights, parameters},
};
use kadr_runner::{scale::Scaler, source};
use kadr_shared::geometry::{InputSize, Letterbox};

use crate::{
    args::CalibrateArgs,
    commands::Failure,
    config::{catalog, folders},
};

pub fn run(args: &CalibrateArgs) -> Result<(), Failure> {
    let catalog = catalog(&args.folders.models).map_err(Failure::unusable)?;
    let model = catalog.model(&args.name).map_err(Failure::unusable)?;
    let weights = Store::new(folders(&args.folders.models)).locate(model).map_err(Failure::unusable)?;
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let plan = Plan::new(model.scale, model.labels.len());
    let parameters = parameters(&weights).map_err(Failure::unusable)?;
    let calibrator = Calibrator::new(&plan, &parameters, &weights.file.sha256, args.input_size, threads);
    let calibrator = calibrator.map_err(Failure::unusable)?;
    let path = calibrated(args, calibrator, &weights).map_err(Failure::unusable)?;
    println!("{path}: int8 of {} is calibrated", model.name);
    Ok(())
}

fn calibrated(args: &CalibrateArgs, mut calibrator: Calibrator, weights: &VerifiedWeights) -> Result<String> {
    let each = usize::from(args.frames).div_ceil(args.clips.len().max(1));
    let bar = ProgressBar::new((each * args.clips.len()) as u64);
    bar.set_style(ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} frames")?);
    bar.enable_steady_tick(Duration::from_millis(200));
    for clip in &args.clips {
        bar.set_message(clip.display().to_string());
        let found = look_at(clip, args.input_size, each, &mut calibrator, &bar)
            .with_context(|| format!("{} can't be looked at", clip.display()))?;
        if found == 0 {
            bail!("{} has no frames", clip.display());
        }
    }
    bar.finish_and_clear();
    let frames = calibrator.frames();
    let bytes = calibrator.finish().to_bytes().context("the calibration can't be written as JSON")?;
    let path = calibration_path(weights);
    // Whoever reads it sees all of it or nothing.
    let part = path.with_extension("part");
    let written = || std::fs::write(&part, &bytes).and_then(|()| std::fs::rename(&part, &path));
    written().with_context(|| {
        format!("can't write {}: copy the weights into a folder of your own and name that by --models", path.display())
    })?;
    Ok(format!("{} ({frames} frames)", path.display()))
}

/// Takes `wanted` frames, evenly spaced, or all if there are fewer; how many.
fn look_at(
    clip: &Path,
    input: InputSize,
    wanted: usize,
    calibrator: &mut Calibrator,
    bar: &ProgressBar,
) -> Result<usize> {
    let path = std::path::absolute(clip)?;
    let mut source = source::open(&path)?;
    let fit = Letterbox::fit(source.info().size, input);
    // Where the number of frames is not told: one of ten, as many as are wanted.
    let step = source.info().frames.map_or(10, |all| (all / wanted.max(1) as u64).max(1));
    let mut scaler = Scaler::new();
    let mut taken = 0;
    while taken < wanted {
        let Some(frame) = source.next_frame()? else { break };
        if frame.number % step == 0 {
            let planes = scaler.letterbox(&frame.picture, &fit)?;
            calibrator.add(&planes, frame.picture.colour()).map_err(|error| anyhow!(error))?;
            taken += 1;
            bar.inc(1);
        }
    }
    Ok(taken)
}
