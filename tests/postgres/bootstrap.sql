-- What a Supabase project has before our migrations: its roles, the schema of its Auth, and the default privileges of older projects, which
-- hand everything made in `public` to everyone. Run as superuser; migrations then run as `postgres`, which is none.
set client_min_messages = warning;
create role anon nologin noinherit;
create role authenticated nologin noinherit;
create role service_role nologin noinherit bypassrls;
create role authenticator login noinherit;
create role postgres login createrole createdb bypassrls;
grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role to postgres;
-- Projects have 3 and 8 seconds; a machine that runs many tests at once may need more.
alter role anon set statement_timeout = '30s';
alter role authenticated set statement_timeout = '30s';
alter role authenticator set statement_timeout = '30s';
grant create on database postgres to postgres;

create schema extensions;
create schema auth;
grant usage on schema public, extensions, auth to anon, authenticated, service_role, postgres;
grant all on schema public to postgres with grant option;
-- A project of its own, with a table whose name is one of ours.
create table public.users (id uuid primary key);
create table auth.users (id uuid primary key, aud varchar(255), role varchar(255), email varchar(255), created_at timestamptz default now(),
  banned_until timestamptz);
grant select, references, trigger on auth.users to postgres;

alter default privileges for role postgres in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges for role postgres in schema public grant all on functions to anon, authenticated, service_role;
alter default privileges for role postgres in schema public grant all on sequences to anon, authenticated, service_role;
