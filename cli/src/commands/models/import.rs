//! `kadr models import`: another's file of weights made a model.
//!
//! Reading, telling and writing is done by [`kadr_inference::weights::import`]; here it is asked for and told of.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Error, anyhow};
use image::{ImageReader, Limits, imageops::FilterType};
use kadr_inference::weights::import::{Agreement, Network, Picture, check_labels, inspect, install, verify};
use kadr_shared::geometry::{InputSize, Letterbox, Size};

use crate::{
    args::ImportArgs,
    commands::Failure,
    config::{catalog, folders},
};

/// What a decoded image may take.
const MOST_MEMORY: u64 = 512 << 20;
/// Around an image in the network's input, as the runner has it.
const GREY: f32 = 114.0 / 255.0;

pub(super) async fn run(args: ImportArgs) -> Result<(), Failure> {
    // Reading and computing take seconds, and block.
    tokio::task::spawn_blocking(move || import(args)).await.map_err(Error::from)?
}

fn import(args: ImportArgs) -> Result<(), Failure> {
    let ImportArgs { file, name, labels, licence, image, folders: models } = args;
    let folders = folders(&models.models);
    let folder = folders
        .first()
        .ok_or_else(|| Failure::unusable(anyhow!("no folder of models is given: set KADR_MODELS or --models")))?;
    if catalog(&models.models).map_err(Failure::unusable)?.model(&name).is_ok() {
        return Err(Failure::unusable(anyhow!("there is a model {name} already: choose another --name")));
    }
    // The picture first: reading it is fast, and a wrong one is soon told.
    let picture = match &image {
        Some(path) => picture(path).map_err(Failure::unusable)?,
        None => Picture::made_up().map_err(Failure::unusable)?,
    };
    let network = inspect(&file).map_err(Failure::unusable)?;
    println!(
        "{}: {}, YOLOv8 of scale {}, {} classes, {:.1} million parameters",
        file.display(),
        network.format,
        network.scale_name(),
        network.classes,
        network.parameters() as f64 / 1e6,
    );
    let labels = chosen(labels, &network);
    check_labels(&labels, network.classes).map_err(Failure::unusable)?;
    let agreement = verify(&network, &picture)
        .with_context(|| format!("{} can't be verified, nothing was written", file.display()))
        .map_err(Failure::unusable)?;
    let shown = image.as_ref().map_or_else(|| "a made-up picture".to_owned(), |path| path.display().to_string());
    println!(
        "verified on {shown} of {}: fast path and reference agree in {} places (boxes within {:.4} px, scores within \
         {:.6}); {}",
        picture.input,
        agreement.anchors,
        agreement.box_off,
        agreement.score_off,
        counted(&agreement, &labels),
    );
    let installed = install(&network, name.clone(), labels, licence.clone(), folder).map_err(Failure::unusable)?;
    println!("wrote {} ({} bytes, sha256 {})", installed.weights.display(), installed.bytes, installed.sha256);
    println!("model {name} (weights under {licence}) is in {}", installed.manifest.display());
    if licence == "unknown" {
        eprintln!("notice: the weights' licence is not known: name it by --licence, it binds whoever uses them");
    }
    Ok(())
}

/// Those that were given, those in the file, or numbers.
fn chosen(given: Vec<String>, network: &Network) -> Vec<String> {
    match &network.labels {
        _ if !given.is_empty() => given,
        Some(labels) => labels.clone(),
        None => {
            eprintln!("notice: the file names no classes; they are class0, class1, … unless --labels names them");
            (0..network.classes).map(|class| format!("class{class}")).collect()
        }
    }
}

/// `5 detections: 4 person, 1 bus`
fn counted(agreement: &Agreement, labels: &[String]) -> String {
    let mut counts = BTreeMap::<usize, usize>::new();
    for detection in &agreement.detections {
        *counts.entry(detection.class).or_default() += 1;
    }
    let label = |class: usize| labels.get(class).map_or("?", String::as_str);
    let each: Vec<_> = counts.iter().map(|(class, count)| format!("{count} {}", label(*class))).collect();
    match each.as_slice() {
        [] => "no detections".to_owned(),
        each => format!("{} detections: {}", agreement.detections.len(), each.join(", ")),
    }
}

/// An image as the network takes it.
fn picture(path: &Path) -> Result<Picture, Error> {
    let shown = path.display();
    let read = || format!("can't read the image {shown}");
    let mut reader = ImageReader::open(path).with_context(read)?.with_guessed_format().with_context(read)?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MOST_MEMORY);
    reader.limits(limits);
    let image = reader.decode().with_context(|| format!("{shown} is no image that can be read (JPEG or PNG)"))?;
    let source = Size { width: image.width(), height: image.height() };
    let letterbox = Letterbox::fit(source, InputSize::fitting(source));
    let image = image::imageops::resize(&image.into_rgb8(), letterbox.width, letterbox.height, FilterType::Triangle);
    let input = letterbox.input;
    let number = |channel: usize, x: u32, y: u32| {
        let inside = x.checked_sub(letterbox.left).zip(y.checked_sub(letterbox.top));
        let pixel = inside.and_then(|(x, y)| image.get_pixel_checked(x, y));
        pixel.and_then(|pixel| pixel.0.get(channel)).map_or(GREY, |&value| f32::from(value) / 255.0)
    };
    let line = |channel, y| (0..input.width()).map(move |x| number(channel, x, y));
    let line = &line;
    let planes = (0..3).flat_map(|c| (0..input.height()).flat_map(move |y| line(c, y))).collect();
    Ok(Picture { planes, input })
}
