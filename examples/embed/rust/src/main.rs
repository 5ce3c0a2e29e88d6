//! Classifies digits on two threads that share the weights.

use std::error::Error;

#[allow(dead_code)]
mod net {
    include!(concat!(env!("NET_BUNDLE"), "/net.rs"));
}

const PIXELS: usize = 784;
const BATCH: usize = 64;

/// How many of these digits are classified right.
fn correct(model: &net::Model, images: &[f32], labels: &[u8]) -> Result<usize, net::Error> {
    let mut workspace = net::Workspace::new(BATCH).expect("a batch that the net was made for");
    let mut scores = vec![0f32; BATCH * 10];
    let mut right = 0;
    for (images, labels) in images.chunks(BATCH * PIXELS).zip(labels.chunks(BATCH)) {
        let batch = labels.len();
        model.run(images, &mut scores[..batch * 10], batch, &mut workspace)?;
        right += scores.chunks(10).zip(labels).filter(|(row, label)| {
            (0..10).max_by(|&a, &b| row[a].total_cmp(&row[b])) == Some(**label as usize)
        }).count();
    }
    Ok(right)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.len() != 3 {
        return Err("usage: classify net.safetensors digits.bin".into());
    }
    let model = net::Model::new(&std::fs::read(&arguments[1])?)?;
    let content = std::fs::read(&arguments[2])?;
    let count = i32::from_le_bytes(content[..4].try_into()?) as usize;
    let (pixels, labels) = content[4..].split_at(count * PIXELS * 4);
    let images: Vec<f32> = pixels.chunks(4).map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect();
    let half = count / 2;
    let right = std::thread::scope(|scope| {
        let first = scope.spawn(|| correct(&model, &images[..half * PIXELS], &labels[..half]));
        let second = correct(&model, &images[half * PIXELS..], &labels[half..])?;
        Ok::<usize, net::Error>(first.join().expect("a thread that ends")? + second)
    })?;
    println!("{right} of {count} digits are right");
    Ok(())
}
