// Who one is in which organisation, as the server says it.

import { api, ApiError } from './client.ts';
import { forget, isNamed } from './place.ts';
import type { Me } from './types.ts';

/** The organisation that this browser was in may be none of the caller's any more: then it is the one of the login. */
export async function whoAmI(): Promise<Me> {
  try {
    return await api.me();
  } catch (error) {
    if (!(error instanceof ApiError && error.code === 'organization_not_found' && isNamed())) throw error;
    forget();
    return api.me();
  }
}
