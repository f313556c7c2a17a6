// Which organisation this page is in. Requests say it in a header; event streams, terminals and downloads, with which browsers send no
// headers of ours, have it from a cookie, which only chooses among the organisations that one is in. The cookie is the whole browser's,
// so all its tabs are in one organisation: a tab that goes elsewhere takes the others along.

/** As long as a browser stays logged in. */
const COOKIE_SECONDS = 30 * 24 * 3600;

const channel = new BroadcastChannel('agentapi.organization');
let current: string | null = null;

export function organizationHeader(): Record<string, string> {
  return current === null ? {} : { 'x-agentapi-organization': current };
}

/** Whether a request names an organisation, by whichever of the two. */
export function isNamed(): boolean {
  return current !== null || document.cookie.split('; ').some((pair) => pair.startsWith(`${cookieName()}=`));
}

/** The page is there: the server said so. */
export function settle(organization: string): void {
  current = organization;
  writeCookie(organization, COOKIE_SECONDS);
}

/** The page goes there, and the browser's other tabs with it. */
export function go(organization: string): void {
  settle(organization);
  channel.postMessage(organization);
}

/** Back to whichever the login was made in. */
export function forget(): void {
  current = null;
  writeCookie('', 0);
}

/** Another tab went elsewhere. */
export function onMoved(listener: () => void): void {
  channel.onmessage = (event: MessageEvent<string>) => {
    if (event.data === current) return;
    current = event.data;
    listener();
  };
}

/** Browsers share cookies between ports, so the port is in the name; with TLS it begins so that no other host can set it. It is the server's rule. */
function cookieName(): string {
  return isTls() ? `__Host-agentapi_${location.port || '443'}_organization` : `agentapi_${location.port || '80'}_organization`;
}

function isTls(): boolean {
  return location.protocol === 'https:';
}

function writeCookie(value: string, seconds: number): void {
  const secure = isTls() ? ' Secure;' : '';
  document.cookie = `${cookieName()}=${value}; Path=/;${secure} SameSite=Strict; Max-Age=${seconds}`;
}
