// The height that is really there. iOS lays its keyboard over the page without telling CSS; without this it covers the prompt.

export function followKeyboard(): void {
  const { visualViewport } = window;
  if (!visualViewport) return;
  const apply = () => {
    // While zoomed in the visible part says nothing about the keyboard.
    const height = visualViewport.scale > 1.01 ? '' : `${visualViewport.height}px`;
    document.documentElement.style.setProperty('--page-height', height);
    if (height !== '') scrollTo(0, 0);
  };
  visualViewport.addEventListener('resize', apply);
}
