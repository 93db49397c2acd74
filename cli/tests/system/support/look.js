// Looks at a video until it shows something colourful: its size, how many pixels are so, and how far it has played.
const [source, done] = arguments;
let video = document.querySelector("video");
if (source) {
  video = document.createElement("video");
  video.muted = true;
  video.src = source;
  document.body.replaceChildren(video);
  video.play().catch(() => {});
}
const canvas = document.createElement("canvas");
const end = Date.now() + 30000;
const look = () => {
  const [width, height] = [video.videoWidth, video.videoHeight];
  if (video.readyState >= 2 && width) {
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d");
    context.drawImage(video, 0, 0);
    const pixels = context.getImageData(0, 0, width, height).data;
    let colourful = 0;
    for (let at = 0; at < pixels.length; at += 4) {
      const [r, g, b] = [pixels[at], pixels[at + 1], pixels[at + 2]];
      if (Math.max(r, g, b) - Math.min(r, g, b) > 60) colourful++;
    }
    if (colourful > 100 && video.currentTime > 0) return done({ width, height, colourful, at: video.currentTime });
  }
  if (Date.now() > end) return done({ error: video.error?.message ?? document.body.innerText, state: video.readyState });
  setTimeout(look, 100);
};
look();
